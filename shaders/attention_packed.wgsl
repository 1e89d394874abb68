// y = softmax(q · kᵀ * scale) · v of packed texts: a row attends to all rows of its own text. Tile by tile with an online
// softmax (FlashAttention, Dao et al. 2022): a workgroup takes neighbouring rows, whatever their texts, and one head.

struct Params {
    rows: u32,
    scale: f32, // of scores, times log2(e)
}

@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>; // rows[M] = (token, position, start, end)
@group(0) @binding(15) var<uniform> params: Params;

#import qkv

const OUTPUT: u32 = 2u;
#import output

const LOWEST: f32 = -3e38;

#ifdef COOP_MATRIX
#import attention_packed/coop
#else
#import attention_packed/lanes
#endif
