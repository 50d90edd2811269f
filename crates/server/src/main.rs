//! The binary `fanfare`. Everything is in the library.

use std::process::ExitCode;

/// The C library's allocator keeps what thousands of connections used after they have gone; this one gives it back.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    fanfare_server::cli::main()
}
