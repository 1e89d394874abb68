// Sums are written as they are.
const OUTPUT: u32 = 2u;

#import matmul/finish/rows

#import matmul/begin_none

const FINISHES = false;

fn finish(n: u32, sum: f32) -> f32 {
    return sum;
}
