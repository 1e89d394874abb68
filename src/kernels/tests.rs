use super::testing::{Compare, Mutant, check_all};
use super::*;
use crate::gpu::{Access, Adapter, Context};
use crate::profile::{Backend, Profile};
use crate::shader::reflect;

/// A device on whatever adapter there is, clipped to a stored profile where one is named.
fn context(clip: Option<&str>) -> Context {
    pollster::block_on(async {
        let adapter = Adapter::request(&Default::default()).await.unwrap();
        let clip = clip.map(|name| Profile::by_name(name).unwrap());
        Context::open(&adapter, clip.as_ref()).await.unwrap()
    })
}

/// What a browser shows of the device of `profile`: with and without what is an option there.
fn in_a_browser(profile: &Profile) -> Vec<Profile> {
    let options = [(false, false), (false, true), (true, false), (true, true)];
    let offered = options
        .into_iter()
        .filter(|(f16, subgroups)| (profile.features.f16 || !f16) && (profile.features.subgroups || !subgroups));
    let shown = offered.map(|(f16, subgroups)| {
        let mut shown = profile.clone();
        shown.name = format!("{} in a browser, f16 {f16}, subgroups {subgroups}", profile.name);
        shown.backend = Backend::Browser;
        shown.features.f16 = f16;
        shown.features.subgroups = subgroups;
        shown.features.immediates = false;
        shown.cooperative_matrices.clear();
        shown
    });
    shown.collect()
}

/// The rendered sources are few next to cases × profiles: each is looked at once.
fn each_source(mut look: impl FnMut(&Case, &Profile, &str)) {
    let mut seen = std::collections::HashSet::new();
    let stored = Profile::stored();
    let browsers: Vec<Profile> = stored.iter().flat_map(in_a_browser).collect();
    for profile in stored.into_iter().chain(browsers) {
        for case in cases_for(&profile) {
            let source = case.kernel.spec(&profile).render().unwrap_or_else(|e| panic!("{}: {e}", case.name));
            if seen.insert((profile.backend, source.clone())) {
                look(&case, &profile, &source);
            }
        }
    }
}

#[test]
fn every_variant_compiles_for_every_profile() {
    let mut failures = Vec::new();
    let mut writable = 0;
    each_source(|case, profile, source| {
        let spec = case.kernel.spec(profile);
        let compiled = spec.render_to_compile().unwrap();
        if compiled != source {
            writable += 1;
            assert!(
                spec.has_inputs_writable() && !compiled.contains("storage, read>"),
                "{} for {}",
                case.name,
                profile.name
            );
        }
        if let Err(error) = reflect::validate(&compiled, profile) {
            failures.push(format!("{} for {}: {error}", case.name, profile.name));
        }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(writable > 0);
}

#[test]
fn params_and_bindings_agree_with_the_wgsl() {
    each_source(|case, profile, source| {
        let found = reflect::reflect(source).unwrap_or_else(|e| panic!("{} for {}: {e}", case.name, profile.name));
        let params = case.kernel.params();
        let fields = found.params.map_or(Vec::new(), |layout| layout.fields);
        let members: Vec<_> = fields.iter().map(|m| (m.name.as_str(), m.offset, m.ty.as_str())).collect();
        let expected: Vec<_> = params.members.iter().map(|&(name, offset, ty)| (name, offset as u32, ty)).collect();
        assert_eq!(members, expected, "{}: Params", case.name);
        let writes: Vec<_> = found.bindings.iter().map(|b| b.access == reflect::Access::ReadWrite).collect();
        let expected: Vec<_> = case.kernel.bindings().iter().map(|b| b.access == Access::Write).collect();
        assert_eq!(writes, expected, "{}: bindings", case.name);
    });
}

/// Browsers add a counter of 64 bits, and with it an exit that keeps a loop from being unrolled, to every loop of which their
/// compiler does not see that it ends; it sees that of loops that count by one to a constant.
#[test]
fn loops_count_by_one_in_browsers() {
    // Over what only the device knows.
    let others = [
        "loop {",
        "for (var key = 0u; key <= last; key += KEYS) {",
        "for (var key = begin; key < end; key += KEYS) {",
        "for (var i = id.x + id.y * groups.x * WORKGROUP; i < params.count; i += stride) {",
        "for (var i = id.x + id.y * groups.x * WORKGROUP; i < params.rows * params.row_words; i += stride) {",
        "for (var base = 0u; base < place.count; base += place.size) {",
        "for (var r = group.y; r < params.rows; r += groups.y) {",
        "for (var i = lane; i < window; i += WORKGROUP) {",
        "while owner + 1u < WORKGROUP && drawn >= counts[owner] {",
        "for (var j = 0u; j < i; j++) {",
        "for (var token = from_token; token < to_token; token++) {",
        "for (var row = first; row < end; row++) {",
        "for (var r = tile.first_row + first; r < tile.end_row; r += step) {",
        // Not to be unrolled.
        "for (var first = lane % LANES; first < K / UNIT; first += AHEAD * LANES) {",
        "for (var width = 2u; width <= size; width *= 2u) {",
        "for (var step = width / 2u; step > 0u; step /= 2u) {",
        "for (var i = lane; i < size / 2u; i += WORKGROUP) {",
    ];
    let mut odd = std::collections::BTreeSet::new();
    let mut met = vec![false; others.len()];
    each_source(|case, profile, source| {
        for line in source.lines().map(str::trim).filter(|_| profile.backend == Backend::Browser) {
            let loops = line.starts_with("for (") || line.starts_with("while ") || line == "loop {";
            if let Some(at) = others.iter().position(|other| *other == line) {
                met[at] = true;
            } else if loops && !counts_to_a_constant(line) {
                odd.insert(format!("{}: {line}", case.kernel.name()));
            }
        }
    });
    assert!(odd.is_empty(), "{odd:#?}");
    let gone: Vec<_> = others.iter().zip(met).filter(|(_, met)| !met).map(|(other, _)| other).collect();
    assert!(gone.is_empty(), "no shader has them any more: {gone:#?}");
    for line in [
        "for (var i = 0u; i < n; i++) {",
        "for (var i = lane; i < 8u; i += 2u) {",
        "for (var r = a; r < tile.end; r++) {",
    ] {
        assert!(!counts_to_a_constant(line), "{line}");
    }
    for line in ["for (var i = lane; i < K / 4u; i++) {", "for (var i = countTrailingZeros(KEYS); i > 0u; i--) {"] {
        assert!(counts_to_a_constant(line), "{line}");
    }
}

/// Whether a loop counts by one to what has no names but those of constants.
fn counts_to_a_constant(line: &str) -> bool {
    let Some((head, "++) {" | "--) {")) = line.len().checked_sub(5).map(|at| line.split_at(at)) else { return false };
    let bound = head.split("; ").nth(1).and_then(|test| test.split_once(['<', '>'])).map_or("a", |(_, bound)| bound);
    let bound = bound.replace("countTrailingZeros", "");
    let mut words = bound.split(|c: char| !c.is_alphanumeric() && c != '_');
    !words.any(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
}

fn all_pass(clip: Option<&str>) {
    let context = context(clip);
    let mut failures = Vec::new();
    let mut count = 0;
    pollster::block_on(check_all(&context, |outcome| {
        count += 1;
        if let Some(failure) = &outcome.failure {
            failures.push(format!("{}: {failure}", outcome.name));
        }
    }))
    .unwrap();
    assert!(
        failures.is_empty(),
        "{} of {count} on {}:\n{}",
        failures.len(),
        context.profile().name,
        failures.join("\n")
    );
}

#[test]
fn every_kernel_equals_its_reference() {
    all_pass(None);
}

#[test]
fn every_kernel_equals_its_reference_on_the_baseline() {
    all_pass(Some("webgpu-baseline"));
}

#[test]
fn mutants_are_caught() {
    let context = context(None);
    let mut escaped = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for case in cases_for(context.profile()) {
        // One case a kernel and way of comparing; the comparison does not depend on more.
        if !seen.insert((case.kernel.name(), format!("{:?}", case.compares()))) {
            continue;
        }
        for mutant in [Mutant::OneValueOff, Mutant::LastSkipped, Mutant::PastTheEnd] {
            let outcome = pollster::block_on(case.run(&context, Some(mutant))).unwrap();
            if outcome.failure.is_none() {
                escaped.push(format!("{}: {mutant:?}", case.name));
            }
        }
    }
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
    assert!(seen.iter().any(|(_, compare)| compare.contains(&format!("{:?}", Compare::Exact))));
}
