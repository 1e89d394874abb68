//! Compiled pipelines in a file, so that the next start of the process need not compile them again.

use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{Error, Result};

/// What a file begins with, before the hash of what follows.
const MAGIC: &[u8; 8] = b"anygpuP1";

/// The driver's cache and the file that it comes from and goes to.
#[derive(Debug)]
pub(super) struct DiskCache {
    raw: wgpu::PipelineCache,
    path: PathBuf,
    /// The hash of what the file holds.
    saved: Mutex<Option<u64>>,
}

fn hash(data: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(data)
}

/// What a file of ours holds: `None` where it is cut off, damaged or not ours.
fn contents(file: &[u8]) -> Option<&[u8]> {
    let rest = file.strip_prefix(MAGIC)?;
    let (sum, data) = rest.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*sum) == hash(data)).then_some(data)
}

/// Writes a file, and the folder that it lies in. Another process never sees half of it.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&part, contents)?;
    fs::rename(&part, path)
}

impl DiskCache {
    /// The cache of an adapter in a folder; empty where there is no file or one that does not fit.
    pub(super) fn open(device: &wgpu::Device, folder: &Path, key: &str) -> Self {
        // Shaders change with the version, and a driver's file would keep those of all versions.
        let path = folder.join(format!("{key}-{}.bin", env!("CARGO_PKG_VERSION")));
        let file = fs::read(&path).unwrap_or_default();
        let data = contents(&file);
        // SAFETY: the data came from `get_data` of the same key, as its hash shows; wgpu and the driver compare its header
        // with the adapter and the driver's version, and begin anew where they differ.
        let raw = unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor { label: Some("disk"), data, fallback: true })
        };
        Self { raw, path, saved: Mutex::new(data.map(hash)) }
    }

    /// For a pipeline's descriptor.
    pub(super) fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }

    /// Writes the file, where it would change.
    pub(super) fn save(&self) -> Result<()> {
        let Some(data) = self.raw.get_data() else { return Ok(()) };
        let sum = hash(&data);
        let mut saved = super::context::lock(&self.saved);
        if *saved == Some(sum) {
            return Ok(());
        }
        let failed = |error: std::io::Error| Error::io(format!("pipeline cache {}: {error}", self.path.display()));
        replace(&self.path, &[&MAGIC[..], &sum.to_le_bytes(), &data].concat()).map_err(failed)?;
        *saved = Some(sum);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_not_taken() {
        let data = b"compiled".to_vec();
        let file = [&MAGIC[..], &hash(&data).to_le_bytes(), &data].concat();
        assert_eq!(contents(&file), Some(&data[..]));
        for length in 0..file.len() {
            assert_eq!(contents(&file[..length]), None, "{length} bytes");
        }
        for at in 0..file.len() {
            let mut other = file.clone();
            other[at] ^= 1;
            assert_eq!(contents(&other), None, "byte {at}");
        }
    }

    #[test]
    fn pipelines_are_kept_and_taken_again() {
        let folder = std::env::temp_dir().join(format!("anygpu-pipelines-{}", std::process::id()));
        let adapter = pollster::block_on(crate::gpu::Adapter::request(&Default::default())).unwrap();
        if !adapter.profile().features.pipeline_cache {
            return; // Nothing to test: only Vulkan drivers have caches.
        }
        let run = || {
            let context = pollster::block_on(crate::gpu::Context::open(&adapter, None)).unwrap();
            context.keep_pipelines(&folder);
            let case = crate::kernels::copy::cases().remove(0);
            let outcome = pollster::block_on(case.run(&context, None)).unwrap();
            assert_eq!(outcome.failure, None);
            context.save_pipelines().unwrap();
            let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(files.len(), 1, "{files:?}");
            fs::read(&files[0]).unwrap()
        };
        let first = run();
        assert!(contents(&first).is_some_and(|data| data.len() > 16), "{} bytes", first.len());
        run();
        // A file cut off is no reason to fail, and is replaced.
        let path = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        fs::write(&path, &first[..first.len() / 2]).unwrap();
        assert!(contents(&run()).is_some());
        fs::remove_dir_all(&folder).unwrap();
    }
}
