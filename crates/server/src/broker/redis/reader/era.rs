//! Whether the reader's place in a log is sure: pushes carry no number, so they are counted, and each mark and announcement says whether
//! that was right. In doubt, an era ends, and with it what clients could go on from.

use super::{
    super::{entry, progress, seen::New},
    Reader,
};

impl Reader<'_> {
    /// A push has said which entry it is, or of a mark: which one came before it.
    pub(super) fn count(&mut self, shard: usize, entry: u64, mark: bool) {
        let state = &mut self.shards[shard];
        let expected = state.counted.map(|counted| counted + u64::from(!mark));
        if expected.is_some_and(|expected| expected != entry) {
            self.miscounted(shard);
        }
        let state = &mut self.shards[shard];
        state.counted = Some(entry);
        match state.era {
            Some(_) => self.shared.progress.done(shard, progress::whole(entry)),
            None => self.renew(shard, progress::whole(entry), false),
        }
    }

    /// The log has entries that were not pushed, or the other way round. Nothing is lost by that, but no position is sure.
    pub(super) fn miscounted(&mut self, shard: usize) {
        tracing::error!(shard, "entries of the log and pushes do not agree: clients that come back are told of a gap");
        self.doubt(shard);
        self.shards[shard].counted = None;
    }

    pub(super) fn doubt(&mut self, shard: usize) {
        self.shards[shard].era = None;
        self.shared.progress.doubt(shard);
    }

    /// A new era begins behind a number, in which nothing from before counts. `lost`: events were lost before it.
    pub(super) fn renew(&mut self, shard: usize, from: u64, lost: bool) {
        let state = &mut self.shards[shard];
        let log = (state.identity, state.epoch);
        state.era = Some(self.shared.progress.renew(shard, log, from, lost));
    }

    /// The era in which the new events of an entry have their numbers. There is none where other nodes may have had them under other
    /// numbers, or where this node had some of them under other ones: in an earlier log.
    pub(super) fn era_of(
        &mut self,
        shard: usize,
        header: &entry::Header,
        new: New,
        events: usize,
        entry: Option<u64>,
    ) -> Option<u64> {
        if new.missing > 0 {
            let from = entry.and_then(|entry| entry.checked_sub(1)).map_or(0, progress::whole);
            self.renew(shard, from, true);
        }
        let sure = match new.skip == events {
            true => !header.replay && !new.old,
            false => {
                let done = self.shared.progress.standing(shard).map_or(0, |standing| standing.done);
                let next = entry.is_some_and(|entry| progress::whole(entry) > done);
                next && !header.replay && !header.again && !new.old
            }
        };
        if !sure {
            self.doubt(shard);
        }
        self.shards[shard].era
    }
}
