//! Who follows which space, and what waits to be told to each session.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ebb_protocol::{
    id::{LogId, SpaceId, StreamId},
    session::Input,
    wire::Head,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::commit::{Answer, Notice};

/// Notices of rosters that wait for a session that does not come round to them. Growth of streams is
/// merged and needs no limit; a session this far behind reads the rosters anew with its next Hello.
pub const ROSTER_NOTICES_MAX: usize = 256;

/// Who follows which space.
#[derive(Debug, Default)]
pub struct Hub {
    followers: Mutex<HashMap<SpaceId, Vec<Arc<Inbox>>>>,
    last_id: AtomicU64,
}

/// What waits to be told to one session, in order, in bounded memory.
#[derive(Debug)]
pub struct Inbox {
    id: u64,
    waiting: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Message>,
    /// How far the streams of a space grew; the queue holds one [`Message::Grew`] for each space here.
    grown: BTreeMap<SpaceId, (LogId, BTreeMap<StreamId, Head>)>,
    roster_notices: usize,
    lags: bool,
}

#[derive(Debug)]
enum Message {
    Answer(Answer, usize),
    Grew(SpaceId),
    Notice(SpaceId, Notice),
}

/// What a session is told next.
#[derive(Debug)]
pub enum Told {
    /// Something for the session's state machine, and so many bytes are no longer under way.
    Input(Box<Input>, usize),
    /// The connection ends, and the device comes back: the log cannot say, or the session lags too far.
    Unavailable,
}

impl Hub {
    /// An inbox for a new session.
    pub fn inbox(&self) -> Arc<Inbox> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        Arc::new(Inbox { id, waiting: Mutex::default(), ready: Notify::new() })
    }

    /// Reports to an inbox what happens in a space from now on.
    pub fn follow(&self, space: SpaceId, inbox: &Arc<Inbox>) {
        self.followers.lock().entry(space).or_default().push(inbox.clone());
    }

    /// Reports nothing more of these spaces to an inbox.
    pub fn leave<'a>(&self, spaces: impl IntoIterator<Item = &'a SpaceId>, inbox: &Inbox) {
        let mut followers = self.followers.lock();
        for space in spaces {
            if let Some(inboxes) = followers.get_mut(space) {
                inboxes.retain(|other| other.id != inbox.id);
                if inboxes.is_empty() {
                    followers.remove(space);
                }
            }
        }
    }

    /// Tells everybody who follows a space.
    pub fn tell(&self, space: SpaceId, notice: &Notice) {
        if let Some(inboxes) = self.followers.lock().get(&space) {
            inboxes.iter().for_each(|inbox| inbox.notice(space, notice));
        }
    }
}

impl Inbox {
    /// Puts in the answer to something that weighed so many bytes.
    pub fn answer(&self, answer: Answer, bytes: usize) {
        self.waiting.lock().queue.push_back(Message::Answer(answer, bytes));
        self.ready.notify_one();
    }

    fn notice(&self, space: SpaceId, notice: &Notice) {
        self.waiting.lock().put(space, notice);
        self.ready.notify_one();
    }

    /// What is to be told next, if anything.
    pub fn next(&self) -> Option<Told> {
        let mut waiting = self.waiting.lock();
        if waiting.lags {
            return Some(Told::Unavailable);
        }
        Some(match waiting.queue.pop_front()? {
            Message::Answer(Answer::Unavailable, _) => Told::Unavailable,
            Message::Answer(Answer::Input(input), bytes) => Told::Input(Box::new(input), bytes),
            Message::Grew(space) => {
                let (log_id, heads) = waiting.grown.remove(&space).expect("kept until it is told");
                Told::Input(Box::new(Input::Grew(space, log_id, heads.into_values().collect())), 0)
            }
            Message::Notice(space, Notice::RosterGrew { log_id, roster, entries }) => {
                waiting.roster_notices -= 1;
                let entries = Arc::unwrap_or_clone(entries);
                Told::Input(Box::new(Input::RosterGrew { space, log_id, roster, entries }), 0)
            }
            Message::Notice(space, Notice::Born(born)) => {
                Told::Input(Box::new(Input::Born(space, Some(born))), 0)
            }
            Message::Notice(space, Notice::Grew(log_id, head)) => {
                Told::Input(Box::new(Input::Grew(space, log_id, vec![head])), 0)
            }
        })
    }

    /// Waits until there may be something to tell.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }
}

impl Waiting {
    fn put(&mut self, space: SpaceId, notice: &Notice) {
        match notice {
            Notice::Grew(log_id, head) => {
                let queue = &mut self.queue;
                let (known, heads) = self.grown.entry(space).or_insert_with(|| {
                    queue.push_back(Message::Grew(space));
                    (*log_id, BTreeMap::new())
                });
                if known != log_id {
                    // What waits is of a log that ended.
                    *known = *log_id;
                    heads.clear();
                }
                heads.insert(head.stream, *head);
            }
            Notice::RosterGrew { .. } => {
                self.roster_notices += 1;
                if self.roster_notices > ROSTER_NOTICES_MAX {
                    self.lags = true;
                    self.queue.clear();
                    self.grown.clear();
                    return;
                }
                self.queue.push_back(Message::Notice(space, notice.clone()));
            }
            Notice::Born(_) => self.queue.push_back(Message::Notice(space, notice.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use ebb_protocol::{
        id::{Hash, Position},
        roster::Roster,
    };

    use super::*;

    const SPACE: SpaceId = SpaceId([1; 16]);
    const STREAM: StreamId = StreamId([2; 16]);
    const LOG: LogId = LogId([3; 16]);

    fn grew(position: u64) -> Notice {
        Notice::Grew(LOG, Head { stream: STREAM, position: Position(position), chain: Hash::ZERO })
    }

    #[test]
    fn growth_that_nobody_came_round_to_is_told_once() {
        let hub = Hub::default();
        let inbox = hub.inbox();
        hub.follow(SPACE, &inbox);
        (1..=1000).for_each(|position| hub.tell(SPACE, &grew(position)));
        let Some(Told::Input(input, 0)) = inbox.next() else { panic!("told") };
        let Input::Grew(SPACE, LOG, heads) = *input else { panic!("grew") };
        assert_eq!(heads.iter().map(|head| head.position).collect::<Vec<_>>(), [Position(1000)]);
        assert!(inbox.next().is_none());
    }

    #[test]
    fn a_session_that_lags_too_far_is_sent_away() {
        let hub = Hub::default();
        let inbox = hub.inbox();
        hub.follow(SPACE, &inbox);
        let roster = Arc::new(Roster::new(SPACE));
        let notice = Notice::RosterGrew { log_id: LOG, roster, entries: Arc::default() };
        (0..=ROSTER_NOTICES_MAX).for_each(|_| hub.tell(SPACE, &notice));
        assert!(matches!(inbox.next(), Some(Told::Unavailable)));
    }

    #[test]
    fn nobody_is_told_of_spaces_he_left() {
        let hub = Hub::default();
        let (inbox, other) = (hub.inbox(), hub.inbox());
        hub.follow(SPACE, &inbox);
        hub.follow(SPACE, &other);
        hub.leave([&SPACE], &inbox);
        hub.tell(SPACE, &grew(1));
        assert!(inbox.next().is_none());
        assert!(other.next().is_some());
    }
}
