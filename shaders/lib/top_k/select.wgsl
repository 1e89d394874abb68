// The best TOP of a workgroup's candidates, in order: larger keys first, of equal ones the smaller id.
//
// The TOP-th best of the invocations' own best is a bound that TOP candidates reach; what reaches it lies in TOP invocations,
// so it is at most TOP * HELD candidates, which are sorted. Exact, and the same whatever the order of execution.
//
// Where subgroups can find their best without a barrier, a few are chosen one by one instead: sorting has a barrier for each
// of 72 steps.
//
// Needs from the header: WORKGROUP, a power of two; TOP <= WORKGROUP; HELD, candidates of an invocation; SORTED, a power of
// two, at least WORKGROUP and TOP * HELD; with SUBGROUPS also ROUNDS, whether to choose one by one, and SUBGROUP, their size.

#import top_k/key

alias Held = array<vec2<u32>, HELD>; // keys and ids

var<workgroup> keys: array<u32, SORTED>;
var<workgroup> ids: array<u32, SORTED>;
var<workgroup> taken: atomic<u32>;

fn is_better(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y < b.y);
}

// Bitonic (Batcher 1968), the best first.
fn sort(size: u32, lane: u32) {
    for (var width = 2u; width <= size; width *= 2u) {
        for (var step = width / 2u; step > 0u; step /= 2u) {
            workgroupBarrier();
            for (var i = lane; i < size / 2u; i += WORKGROUP) {
                let low = 2u * step * (i / step) + i % step;
                let high = low + step;
                let a = vec2<u32>(keys[low], ids[low]);
                let b = vec2<u32>(keys[high], ids[high]);
                if select(is_better(a, b), is_better(b, a), (low & width) == 0u) {
                    keys[low] = b.x;
                    ids[low] = b.y;
                    keys[high] = a.x;
                    ids[high] = a.y;
                }
            }
        }
    }
    workgroupBarrier();
}

#ifdef SUBGROUPS
const TEAMS = WORKGROUP / SUBGROUP;

// The best of each subgroup, for rounds in turns.
var<workgroup> team_keys: array<u32, 2u * TEAMS>;
var<workgroup> team_ids: array<u32, 2u * TEAMS>;

fn select_rounds(held: ptr<function, Held>, lane: u32) {
    for (var i = 0u; i < HELD; i++) {
        if (*held)[i].x == 0u {
            (*held)[i] = NONE;
        }
    }
    for (var round = 0u; round < TOP; round++) {
        var own = (*held)[0];
        for (var i = 1u; i < HELD; i++) {
            if is_better((*held)[i], own) {
                own = (*held)[i];
            }
        }
        let key = subgroupMax(own.x);
        let id = subgroupMin(select(NONE.y, own.y, own.x == key));
        let first = (round & 1u) * TEAMS;
        if lane % SUBGROUP == 0u {
            team_keys[first + lane / SUBGROUP] = key;
            team_ids[first + lane / SUBGROUP] = id;
        }
        workgroupBarrier();
        var best = NONE;
        for (var i = 0u; i < TEAMS; i++) {
            let of_team = vec2<u32>(team_keys[first + i], team_ids[first + i]);
            if is_better(of_team, best) {
                best = of_team;
            }
        }
        if lane == 0u {
            keys[round] = best.x;
            ids[round] = best.y;
        }
        for (var i = 0u; i < HELD; i++) {
            if all((*held)[i] == best) {
                (*held)[i] = NONE;
            }
        }
    }
    workgroupBarrier();
}
#endif

// Leaves the best in `keys` and `ids`. To be called by the whole workgroup.
fn select_best(held: ptr<function, Held>, lane: u32) {
#ifdef SUBGROUPS
    if ROUNDS {
        select_rounds(held, lane);
        return;
    }
#endif
    var best = (*held)[0];
    for (var i = 1u; i < HELD; i++) {
        if is_better((*held)[i], best) {
            best = (*held)[i];
        }
    }
    keys[lane] = best.x;
    ids[lane] = best.y;
    sort(WORKGROUP, lane);
    let bound = vec2<u32>(keys[TOP - 1u], ids[TOP - 1u]);
    workgroupBarrier();
    for (var turn = 0u; turn < (SORTED + WORKGROUP - 1u) / WORKGROUP; turn++) {
        let i = turn * WORKGROUP + lane;
        if SORTED % WORKGROUP != 0u && i >= SORTED {
            break;
        }
        keys[i] = NONE.x;
        ids[i] = NONE.y;
    }
    if lane == 0u {
        atomicStore(&taken, 0u);
    }
    workgroupBarrier();
    for (var i = 0u; i < HELD; i++) {
        let candidate = (*held)[i];
        if candidate.x != 0u && !is_better(bound, candidate) {
            let place = atomicAdd(&taken, 1u);
            keys[place] = candidate.x;
            ids[place] = candidate.y;
        }
    }
    sort(SORTED, lane);
}
