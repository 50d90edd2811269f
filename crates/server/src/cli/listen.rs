//! `fanfare listen`: prints events as they come.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `session` | one connection, from its handshake to its end |
//! | `output` | how an event is printed |
//!
//! This file decides what follows when a connection ends: another one, or an error.

use std::time::Duration;

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use self::{
    output::Output,
    session::{End, Session},
};
use super::{
    CliError,
    api::{Server, ServerArgs},
    block_on, tell,
};

mod output;
mod session;

/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct ListenArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The channels; private and presence channels are signed with the app's secret
    #[arg(required = true)]
    channels: Vec<String>,
    /// Who joins presence channels, where others see it
    #[arg(long, value_name = "ID", default_value = "fanfare-listen")]
    user_id: String,
    /// What others see of this user there, as JSON
    #[arg(long, value_name = "JSON")]
    user_info: Option<String>,
    /// One JSON object a line, as the server sends it
    #[arg(long)]
    json: bool,
    /// Also print what concerns the subscriptions themselves, such as `subscription_count`
    #[arg(long)]
    all: bool,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

const HELP: &str = "\
Examples:
  fanfare listen orders private-till presence-room
  fanfare listen '#server-to-user-ada'           signs in as the user ada
  fanfare listen orders --json | jq .data
  fanfare listen orders --count 1                waits for one event

It reconnects when the connection ends, unless the server says not to; events of the time between are missing. What it does
is told on stderr. Ctrl-C ends it. Events of encrypted channels are printed as they come: encrypted.
Exit codes: 0 after Ctrl-C or --count; 1 when the server refuses, or cannot be reached at first; 2 for a bad flag or
configuration.";

/// Whether it is over.
enum Next {
    /// As asked for.
    Done,
    /// Connect again, after a pause.
    Again(Duration),
}

pub(super) fn run(args: &ListenArgs) -> Result<(), CliError> {
    let server = args.server.server()?;
    block_on(async {
        let stopped = stopped()?;
        tokio::select! {
            result = listen(args, &server) => result,
            () = stopped => Ok(()),
        }
    })
}

/// Ready when somebody wants it to end.
fn stopped() -> Result<impl Future<Output = ()>, CliError> {
    let signals = || Ok::<_, std::io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    let (mut interrupt, mut terminate) = signals().map_err(anyhow::Error::from)?;
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    })
}

async fn listen(args: &ListenArgs, server: &Server) -> Result<(), CliError> {
    let mut output = Output::new(args.json, args.all, args.count);
    let mut connected_once = false;
    let mut failures = 0;
    loop {
        let next = match Session::connect(server).await {
            Ok(mut session) => {
                (connected_once, failures) = (true, 0);
                after(session.run(server, args, &mut output).await)?
            }
            // A server that was there before may be back soon. One that never answered is probably a wrong address.
            Err(error) if connected_once => {
                tell(format_args!("fanfare: {error}"));
                failures += 1;
                Next::Again(Duration::from_secs(1 << failures.min(5)).min(LONGEST_PAUSE))
            }
            Err(error) => return Err(error),
        };
        match next {
            Next::Done => return Ok(()),
            Next::Again(pause) => sleep(pause).await,
        }
    }
}

/// What follows an end: the band of a close code says whether to come back (4000 to 4099 not, 4100 to 4199 later).
fn after(end: End) -> Result<Next, CliError> {
    match end {
        End::Enough => Ok(Next::Done),
        End::Refused(why) => Err(anyhow::Error::msg(why).into()),
        End::Closed { code: Some(code @ 4000..4100), reason } => {
            Err(anyhow::Error::msg(format!("the server closed the connection for good: {code} {reason}")).into())
        }
        End::Closed { code, reason } => {
            let code = code.map(|code| format!("{code} ")).unwrap_or_default();
            tell(format_args!("fanfare: the connection ended: {code}{reason}; connecting again"));
            let at_once = code.starts_with("42");
            Ok(Next::Again(if at_once { Duration::ZERO } else { Duration::from_secs(1) }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_says_whether_to_come_back() {
        let after = |code| after(End::Closed { code, reason: "r".to_owned() });
        assert!(after(Some(4001)).is_err_and(|error| error.to_string().contains("4001 r")));
        let pause = |code| match after(code) {
            Ok(Next::Again(pause)) => pause.as_secs(),
            _ => panic!("{code:?}"),
        };
        assert_eq!((pause(Some(4100)), pause(Some(4200)), pause(Some(1006)), pause(None)), (1, 0, 1, 1));
    }
}
