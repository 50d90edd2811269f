//! The binary `fanfare`. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfare_server::cli::main()
}
