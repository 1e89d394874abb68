//! GPU time by timestamp queries.

use super::context::Context;
use crate::error::{Error, Result};

/// Timestamps around compute passes.
#[derive(Debug)]
pub struct Timestamps {
    context: Context,
    queries: wgpu::QuerySet,
    resolved: super::Buffer,
    passes: u32,
    used: u32,
}

impl Timestamps {
    /// Room for `passes` timed passes, at most 2048.
    ///
    /// # Errors
    /// `Unsupported` where the device has no timestamps; `Shape` for too many passes.
    pub fn new(context: &Context, passes: u32) -> Result<Self> {
        if !context.profile().features.timestamps {
            return Err(Error::unsupported(format!("{}: no timestamp queries", context.profile().name)));
        }
        if passes == 0 || passes > 2048 {
            return Err(Error::shape(format!("{passes} timed passes: expected 1 to 2048")));
        }
        let queries = context.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * passes,
        });
        let resolved = context.buffer_with("timestamps", u64::from(passes) * 16, wgpu::BufferUsages::QUERY_RESOLVE)?;
        Ok(Self { context: context.clone(), queries, resolved, passes, used: 0 })
    }

    /// Where the next pass writes its begin and end; `None` once all are used.
    pub(crate) fn next(&mut self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let index = self.used;
        if index == self.passes {
            return None;
        }
        self.used += 1;
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * index),
            end_of_pass_write_index: Some(2 * index + 1),
        })
    }

    /// Submits the encoder and waits; returns each timed pass's milliseconds.
    ///
    /// # Errors
    /// What the device reported.
    pub(crate) async fn submit(self, mut encoder: wgpu::CommandEncoder) -> Result<Vec<f64>> {
        if self.used == 0 {
            return Ok(Vec::new());
        }
        encoder.resolve_query_set(&self.queries, 0..2 * self.used, self.resolved.raw(), 0);
        let readback = self.context.record_read(&mut encoder, &self.resolved, 0, u64::from(self.used) * 16);
        let submission = self.context.submit(encoder);
        let bytes = readback.submitted(submission).bytes().await?;
        let period_ms = f64::from(self.context.queue().get_timestamp_period()) * 1e-6;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(ticks.chunks_exact(2).map(|t| t[1].saturating_sub(t[0]) as f64 * period_ms).collect())
    }
}
