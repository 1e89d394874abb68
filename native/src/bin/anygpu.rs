//! The command line: see `anygpu --help`.

fn main() -> std::process::ExitCode {
    anygpu_native::cli::main()
}
