//! The program `apiban`: see [`apiban::cli`].

fn main() -> std::process::ExitCode {
    apiban::cli::main()
}
