//! The `postern` program. Everything is in the library; see `cli`.

fn main() -> std::process::ExitCode {
    postern::cli::main()
}
