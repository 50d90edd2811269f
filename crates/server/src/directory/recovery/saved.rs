//! Rings on their way from one process to the next, through a file: a line of JSON for each.
//!
//! The file is written when nothing can be published any more, and it is gone before its contents are used: a process that ends in any
//! other way leaves none, so no client is ever told that it missed nothing when it did.

use std::{
    borrow::Cow,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fanfare_protocol::{ChannelName, Position};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::ring::{Event, Ring};
use crate::{
    app::AppStore,
    directory::Directory,
    frame::Frame,
    timing::{self, unix_ms},
};

/// The form of the file; another one is not read.
const VERSION: u32 = 1;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    fanfare_rings: u32,
    /// Unix time. How old events are is counted from here.
    saved_at_ms: u64,
}

/// One channel's ring.
#[derive(Serialize, Deserialize)]
struct Saved<'a> {
    app: Cow<'a, str>,
    channel: Cow<'a, str>,
    /// The position of the newest event there was.
    position: Cow<'a, str>,
    /// Oldest first.
    events: Vec<SavedEvent>,
}

#[derive(Serialize, Deserialize)]
struct SavedEvent {
    age_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    except: Option<String>,
    /// As subscribers got it, with its position.
    frame: Box<RawValue>,
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes the rings of all apps, readable for the owner alone. Returns how many there were.
///
/// # Errors
/// The file cannot be written; then none is left.
pub(crate) fn save(path: &Path, apps: &AppStore) -> io::Result<usize> {
    let unfinished = with_suffix(path, ".unfinished");
    let written = write(&unfinished, apps).and_then(|rings| fs::rename(&unfinished, path).map(|()| rings));
    if written.is_err() {
        // If the rest of it cannot be deleted either, there is nothing more to do: the error is told.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn write(path: &Path, apps: &AppStore) -> io::Result<usize> {
    // A file that an earlier, unfinished end left behind could have other permissions.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?);
    serde_json::to_writer(&mut file, &Header { fanfare_rings: VERSION, saved_at_ms: unix_ms() })?;
    let (mut rings, now) = (0, timing::now());
    for app in apps.all().iter() {
        for (channel, position, events) in app.directory.rings(now) {
            let events = events.iter().map(|event| SavedEvent::new(event, now)).collect::<Result<_, _>>()?;
            let (id, position) = (app.id.as_str().into(), position.to_string().into());
            file.write_all(b"\n")?;
            serde_json::to_writer(&mut file, &Saved { app: id, channel: (&*channel).into(), position, events })?;
            rings += 1;
        }
    }
    file.write_all(b"\n")?;
    file.into_inner()?.sync_all()?;
    Ok(rings)
}

impl SavedEvent {
    fn new(event: &Event, now: Instant) -> io::Result<Self> {
        let frame = String::from_utf8_lossy(event.frame.json()).into_owned();
        Ok(Self {
            age_ms: milliseconds(now.duration_since(event.published)),
            except: event.except.map(|except| except.to_string()),
            frame: RawValue::from_string(frame)?,
        })
    }
}

/// Takes the file of an earlier process, if there is one. Returns how many rings go on. Channels whose part cannot be used begin anew.
///
/// # Errors
/// The file cannot be read, or not be deleted: then it is not used, as another start would find it again, when it is out of date. Or there
/// is none, and this process could not write one either.
pub(crate) fn load(path: &Path, apps: &AppStore) -> io::Result<usize> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return can_save(path).map(|()| 0),
        file => file?,
    };
    fs::remove_file(path)?;
    // A machine that loses its power shall not have it again. Some folders cannot be told to keep that: it is gone from them all the same.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Err(error) = File::open(parent.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()) {
        tracing::debug!(%error, "the removal of recovery.file may not outlast a loss of power");
    }
    let mut lines = BufReader::new(file).lines();
    let header = lines.next().transpose()?.unwrap_or_default();
    let header: Header = serde_json::from_str(&header)?;
    if header.fanfare_rings != VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "written by another version"));
    }
    let (mut rings, now) = (0, timing::now());
    let away = Duration::from_millis(unix_ms().saturating_sub(header.saved_at_ms));
    for line in lines {
        let line = line?;
        let saved: Saved<'_> = serde_json::from_str(&line)?;
        let app = apps.by_id(&saved.app);
        rings += usize::from(app.is_some_and(|app| restore(&app.directory, saved, away, now).is_some()));
    }
    Ok(rings)
}

/// Whether the end of this process will find a place to write: then it would be too late to do something about it.
fn can_save(path: &Path) -> io::Result<()> {
    // Not the name of an unfinished file, which the last process may still be writing.
    let tried = with_suffix(path, ".tried");
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tried)?;
    fs::remove_file(tried)
}

fn restore(directory: &Directory, saved: Saved<'_>, away: Duration, now: Instant) -> Option<()> {
    let name = ChannelName::parse(&saved.channel, usize::MAX).ok()?;
    let position = saved.position.parse().ok().filter(|position: &Position| position.epoch != 0)?;
    // Nobody has published more than there were, nor so much that it cannot go on.
    if position.number > u64::MAX / 2 || saved.events.len() as u64 > position.number {
        return None;
    }
    let keeping = directory.recovery.keeping(name.as_str(), name.kind());
    // The server was away for longer than the window: clients are told of a gap.
    if keeping.window <= away {
        return None;
    }
    let ring = Ring::continued(keeping, &directory.recovery.setup.rings, now, position);
    ring.restore(saved.events.into_iter().map(|SavedEvent { age_ms, except, frame }| {
        let age = away + Duration::from_millis(age_ms);
        Event {
            frame: Frame::text(frame.get().as_bytes()),
            except: except.and_then(|except| except.parse().ok()),
            published: now.checked_sub(age).unwrap_or(now),
            number: 0,
        }
    }));
    directory.adopt(name, ring, now)
}

impl Directory {
    /// What an end of the process would lose: the newest position of each ring, and its events.
    fn rings(&self, now: Instant) -> Vec<(Arc<str>, Position, Vec<Event>)> {
        let contents = |channel: &super::Channel| {
            let (position, events) = channel.ring.as_ref()?.contents(now);
            Some((Arc::clone(&channel.name), position, events))
        };
        self.channels.iter().filter_map(|channel| contents(&channel)).collect()
    }

    /// Gives a channel the ring it had in an earlier process.
    fn adopt(&self, name: ChannelName<'_>, ring: Ring, now: Instant) -> Option<()> {
        if !self.has_room_for(name.as_str()) {
            return None;
        }
        let mut channel = self.channel(name.as_str(), name.kind());
        channel.ring = Some(Box::new(ring));
        self.keep_ring(&mut channel, now);
        Some(())
    }
}
