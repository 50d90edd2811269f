//! The server as a process of its own, for scenarios that kill or stop it.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfare_server::cli::main()
}
