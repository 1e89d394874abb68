//! The module's vectors are those of the plan, on Burn's kernels and on this crate's.

use super::*;
use crate::embed::tests::files;
use crate::embed::{Embedder, Long};
use crate::kernels::testing::nmse;
use crate::models::burn_kernels::testing::gpu;

#[test]
fn burn_embeds_as_the_plan_does() {
    let gpu = gpu();
    // Batches of texts of one length and of different ones, a text in parts, one of no words.
    let texts =
        ["the cat sits.", "a", "", "DOG running on the abc", "a cat", "the dog runs on a cat. the cat sits on a dog."];
    let options = LoadOptions { plain: true, batch_tokens: 24, max_tokens: Some(8), ..Default::default() };
    let reading = TextOptions { prefix: "a ".into(), long: Long::Split };
    let found = pollster::block_on(async {
        let mut plan = Embedder::load(&gpu.context, files(), &options, |_| {}).await?;
        let mut found = vec![plan.embed(&texts, &reading).await?];
        for kernels in [Kernels::Burn, gpu.plain_kernels()] {
            let mut embedder = BurnEmbedder::load(&gpu, kernels, files(), &options).await?;
            assert_eq!(embedder.reader().max_tokens(), 8);
            found.push(embedder.embed(&texts, &reading).await?);
        }
        Ok::<_, Error>(found)
    });
    let found = found.unwrap();
    for (vectors, name) in found[1..].iter().zip(["Burn's kernels", "this crate's"]) {
        for ((vector, expected), text) in vectors.iter().zip(&found[0]).zip(texts) {
            // In f32 only the order of sums differs.
            let error = nmse(vector, expected);
            assert!(error < 1e-9, "{name}, {text:?}: NMSE {error:e}");
        }
    }
}

#[test]
fn padded_batches_leave_the_scores_of_attention_a_binding() {
    for (heads, binding_bytes) in [(12, 128 << 20), (16, 128 << 20), (1, 4), (12, 1 << 30)] {
        let rows = most_padded(heads, binding_bytes) as u64;
        let bytes = |rows: u64| 4 * heads as u64 * rows * rows;
        assert!(bytes(rows) <= binding_bytes && bytes(rows + 1) > binding_bytes, "{heads} heads: {rows} rows");
    }
}
