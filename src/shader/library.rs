//! Every file below `shaders/`, embedded at build time.

/// (path below `shaders/`, text), sorted by path. Written by `src/shader/embed.rs`.
static FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// The text of `path`, which is relative to `shaders/`: `lib/half.wgsl`.
pub fn get(path: &str) -> Option<&'static str> {
    FILES.binary_search_by_key(&path, |(path, _)| path).ok().map(|index| FILES[index].1)
}

/// All paths below `shaders/`, sorted.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _)| *path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_found_by_its_path() {
        assert!(paths().is_sorted());
        for path in paths() {
            let on_disk = std::fs::read_to_string(format!("{}/shaders/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            assert_eq!(get(path), Some(on_disk.as_str()), "{path}");
        }
        assert!(get("lib/reduce.wgsl").is_some());
        assert_eq!(get("lib/reduce"), None);
        assert_eq!(get(""), None);
    }

    /// naga 30 turns `bitcast<vec2<f16>>(u32)` silently into `bitcast<f32>`.
    #[test]
    fn no_shader_bitcasts_to_f16() {
        for path in paths() {
            for (number, line) in get(path).unwrap().lines().enumerate() {
                if let Some(found) = forbidden_bitcast(line) {
                    panic!("shaders/{path}:{}: `{found}`: write vec2<f16>(unpack2x16float(u)) instead", number + 1);
                }
            }
        }
        for line in ["let a = bitcast<vec2<f16>>(u);", "bitcast< vec4 < f16 > >(v)", "bitcast<vec2h>(u)"] {
            assert!(forbidden_bitcast(line).is_some(), "{line}");
        }
        for line in ["bitcast<u32>(x)", "// never bitcast<vec2<f16>>", "vec2<f16>(unpack2x16float(u))"] {
            assert!(forbidden_bitcast(line).is_none(), "{line}");
        }
    }

    fn forbidden_bitcast(line: &str) -> Option<&'static str> {
        let code: String = line.split("//").next()?.split_whitespace().collect();
        let forbidden = ["bitcast<vec2<f16>>", "bitcast<vec4<f16>>", "bitcast<vec2h>", "bitcast<vec4h>"];
        forbidden.into_iter().find(|forbidden| code.contains(forbidden))
    }
}
