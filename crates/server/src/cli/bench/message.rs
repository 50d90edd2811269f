//! What is in an event: `fanfare-bench:<lane>:<sequence>:<nanoseconds>:xxxx`.
//!
//! Plain text that no JSON encoder touches, so that a receiver finds it without parsing the frame.

/// How the data begins. No channel name can hold it, as those have no colons.
const MARK: &[u8] = b"fanfare-bench:";

/// The name of a channel.
pub(super) fn channel(index: u32) -> String {
    format!("fanfare-bench-{}-{index}", std::process::id())
}

/// Who sent an event, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The sender.
    pub(super) lane: usize,
    /// Counts the sender's events on this channel, from 0.
    pub(super) sequence: u32,
    /// Nanoseconds since the start of the run.
    pub(super) nanos: u64,
}

impl Stamp {
    /// The data, filled up to `length` bytes.
    pub(super) fn write(self, length: usize) -> String {
        let Self { lane, sequence, nanos } = self;
        let mut data = format!("{}{lane}:{sequence}:{nanos}:", String::from_utf8_lossy(MARK));
        data.extend(std::iter::repeat_n('x', length.saturating_sub(data.len())));
        data
    }

    /// Finds the stamp in a frame; other frames have none.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let start = frame.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
        let mut numbers = frame[start..].split(|byte| *byte == b':').map(number);
        let (lane, sequence, nanos) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Self { lane: usize::try_from(lane).ok()?, sequence: u32::try_from(sequence).ok()?, nanos })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_in_its_frame() {
        let stamp = Stamp { lane: 7, sequence: 12, nanos: 123_456 };
        let data = stamp.write(200);
        assert_eq!(data.len(), 200);
        let frame = format!(r#"{{"event":"bench","channel":"{}","data":"{data}"}}"#, channel(0));
        assert_eq!(Stamp::read(frame.as_bytes()), Some(stamp));
        assert_eq!(Stamp::read(stamp.write(0).as_bytes()), Some(stamp));
        assert_eq!(Stamp::read(br#"{"event":"x","channel":"fanfare-bench-0"}"#), None);
        assert_eq!(Stamp::read(b"fanfare-bench:1:x:2:"), None);
    }
}
