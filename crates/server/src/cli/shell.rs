//! `fanfare completions` and `fanfare man`: what a package installs beside the binary.

use anyhow::Context as _;
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::{Cli, CliError, print_bytes};

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

const COMPLETIONS_HELP: &str = "\
Examples:
  fanfare completions bash > ~/.local/share/bash-completion/completions/fanfare
  fanfare completions zsh > \"${fpath[1]}/_fanfare\"
  fanfare completions fish > ~/.config/fish/completions/fanfare.fish";

#[derive(Debug, Args)]
#[command(after_help = MAN_HELP)]
pub(super) struct ManArgs {
    /// One of the commands, such as `trigger` or `app new` [default: the page of them all]
    command: Vec<String>,
}

const MAN_HELP: &str = "\
Examples:
  fanfare man | man -l -
  fanfare man trigger > /usr/local/share/man/man1/fanfare-trigger.1
  fanfare man app new | man -l -";

/// Prints a shell's completions.
pub(super) fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut out = Vec::new();
    generate(args.shell, &mut Cli::command(), "fanfare", &mut out);
    print_bytes(&out)
}

/// Prints a page of the manual.
pub(super) fn man(args: &ManArgs) -> Result<(), CliError> {
    let mut cli = Cli::command();
    cli.build();
    let unknown = |name: &str| CliError::Usage(format!("COMMAND: there is no command {name}; see fanfare --help"));
    let mut page = &cli;
    for name in &args.command {
        page = page.find_subcommand(name).ok_or_else(|| unknown(&args.command.join(" ")))?;
    }
    // Named as the page of the command above it refers to it: `fanfare-app-new`.
    let name = [&["fanfare".to_owned()], &*args.command].concat().join("-");
    let page = page.clone().name(name);
    let mut out = Vec::new();
    Man::new(page).render(&mut out).context("cannot write the page")?;
    print_bytes(&out)
}
