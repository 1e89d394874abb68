// Reductions over a workgroup: every invocation passes its value and gets the result of all.
//
// Needs from the header: `WORKGROUP: u32`, the invocations of the workgroup, a power of two.
// `lane` is the local invocation index. To be called by the whole workgroup at once, as often as wanted: the barrier at
// the start keeps a call from overwriting what slower invocations of the last one still read.

const_assert WORKGROUP > 0u && (WORKGROUP & (WORKGROUP - 1u)) == 0u;

#ifdef SUBGROUPS

// Subgroups have 4 invocations or more (or all of a smaller workgroup), so this many results at most.
var<workgroup> reduce_partial: array<f32, (WORKGROUP + 3u) / 4u>;

// Where this invocation stands. The subgroup size is found here, because a pipeline may get any that the adapter has;
// a subgroup holds consecutive invocations, and all subgroups are full (or there is but one): WORKGROUP and the sizes
// are powers of two.
struct ReducePlace {
    size: u32,  // invocations in the subgroup
    first: u32, // its lowest lane
    count: u32, // subgroups in the workgroup
}

fn reduce_place(lane: u32) -> ReducePlace {
    let size = subgroupAdd(1u);
    return ReducePlace(size, subgroupMin(lane), WORKGROUP / size);
}

// The sum of `value` over the workgroup, in f32; the same bits in every invocation.
fn reduce_sum(value: f32, lane: u32) -> f32 {
    let place = reduce_place(lane);
    let own = subgroupAdd(value);
    workgroupBarrier();
    if (lane == place.first) {
        reduce_partial[lane / place.size] = own;
    }
    workgroupBarrier();
    // Each subgroup adds all partial results: with small subgroups there are more of them than lanes. All its lanes take
    // the same turns, so that they are together for the last sum.
    var sum = 0.0;
    for (var base = 0u; base < place.count; base += place.size) {
        let i = base + lane - place.first;
        sum += select(0.0, reduce_partial[min(i, place.count - 1u)], i < place.count);
    }
    return subgroupAdd(sum);
}

// The largest `value` of the workgroup.
fn reduce_max(value: f32, lane: u32) -> f32 {
    let place = reduce_place(lane);
    let own = subgroupMax(value);
    workgroupBarrier();
    if (lane == place.first) {
        reduce_partial[lane / place.size] = own;
    }
    workgroupBarrier();
    // Lanes that find no partial result of their own look at the last one again.
    var largest = own;
    for (var base = 0u; base < place.count; base += place.size) {
        largest = max(largest, reduce_partial[min(base + lane - place.first, place.count - 1u)]);
    }
    return subgroupMax(largest);
}

#else

var<workgroup> reduce_partial: array<f32, WORKGROUP>;

// The sum of `value` over the workgroup, in f32; the same bits in every invocation.
fn reduce_sum(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    reduce_partial[lane] = value;
    workgroupBarrier();
    for (var i = countTrailingZeros(WORKGROUP); i > 0u; i--) {
        let half = 1u << (i - 1u);
        if (lane < half) {
            reduce_partial[lane] += reduce_partial[lane + half];
        }
        workgroupBarrier();
    }
    return reduce_partial[0];
}

// The largest `value` of the workgroup.
fn reduce_max(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    reduce_partial[lane] = value;
    workgroupBarrier();
    for (var i = countTrailingZeros(WORKGROUP); i > 0u; i--) {
        let half = 1u << (i - 1u);
        if (lane < half) {
            reduce_partial[lane] = max(reduce_partial[lane], reduce_partial[lane + half]);
        }
        workgroupBarrier();
    }
    return reduce_partial[0];
}

#endif
