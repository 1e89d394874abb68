// The best TOP of each WORKGROUP * HELD candidates of a query: one workgroup for so many, the second dimension is the query.
#import top_k/select

struct Params {
    count: u32, // N, candidates of a query
    groups: u32, // of y
    first_group: u32, // of y, that this dispatch writes
}

@group(0) @binding(15) var<uniform> params: Params;
// candidate(query, index), its inputs, and y behind them.
#import candidates

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var held: Held;
    for (var i = 0u; i < HELD; i++) {
        let index = (group.x * HELD + i) * WORKGROUP + lane;
        held[i] = NONE;
        if index < params.count {
            held[i] = candidate(group.y, index);
        }
    }
    select_best(&held, lane);
    if lane < TOP {
        let at = (group.y * params.groups + params.first_group + group.x) * TOP + lane;
        y[at] = vec2<u32>(keys[lane], ids[lane]);
    }
}
