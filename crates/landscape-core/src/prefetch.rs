//! Batches made ahead by a thread of their own, so that a loop finds the next one ready.
//!
//! A batch is a pure function of (seed, epoch, index), so where it is made changes no bit.

use crate::batch::Batches;
use crate::error::Result;
use std::cell::RefCell;
use std::sync::mpsc::{Receiver, sync_channel};

/// Which batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The epoch.
    pub epoch: u64,
    /// Its number in the epoch.
    pub idx: usize,
}

impl Place {
    fn next(self, n_batches: usize) -> Place {
        if self.idx + 1 < n_batches { Place { idx: self.idx + 1, ..self } } else { Place { epoch: self.epoch + 1, idx: 0 } }
    }
}

/// Runs `work` on the batches of `source`, which a thread makes ahead in order from `first` up to the end of epoch `n_epochs − 1`; at
/// most `n_ahead` wait for `work`, and one is being made. A batch that is asked for out of that order is made on the spot.
///
/// The thread ends with `work`, at the end of the epochs, or after the first batch that cannot be made, whose error is what asking for
/// that batch gives.
///
/// ```
/// use landscape_core::Batches;
/// use landscape_core::prefetch::{Place, prefetched};
/// let source = vec!["a", "b", "c"];
/// let seen = prefetched(&source, Place { epoch: 0, idx: 1 }, 2, 2, |batches| {
///     [(0, 1), (0, 2), (1, 0), (0, 0), (1, 1)].map(|(epoch, idx)| batches.batch(epoch, idx).unwrap())
/// });
/// assert_eq!(seen, ["b", "c", "a", "a", "b"]);
/// ```
pub fn prefetched<B, R>(
    source: &B,
    first: Place,
    n_epochs: u64,
    n_ahead: usize,
    work: impl FnOnce(&dyn Batches<Batch = B::Batch>) -> R,
) -> R
where
    B: Batches + Sync + ?Sized,
    B::Batch: Send,
{
    let n_batches = source.n_batches();
    let (sender, receiver) = sync_channel(n_ahead.max(1));
    std::thread::scope(|scope| {
        let make = move || {
            let mut place = first;
            while place.epoch < n_epochs && place.idx < n_batches {
                let batch = source.batch(place.epoch, place.idx);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    break;
                }
                place = place.next(n_batches);
            }
        };
        // Without a thread every batch is made on the spot: the maker goes, and with it the sender.
        let _ = std::thread::Builder::new().spawn_scoped(scope, make);
        work(&Prefetched { source, n_batches, queue: RefCell::new(Queue { receiver, due: first }) })
    })
}

/// What the maker has ready.
struct Queue<T> {
    receiver: Receiver<Result<T>>,
    /// Which batch comes next.
    due: Place,
}

/// The loop's side.
struct Prefetched<'a, B: Batches + ?Sized> {
    source: &'a B,
    n_batches: usize,
    queue: RefCell<Queue<B::Batch>>,
}

impl<B: Batches + ?Sized> Batches for Prefetched<'_, B> {
    type Batch = B::Batch;

    fn n_batches(&self) -> usize {
        self.n_batches
    }

    fn batch(&self, epoch: u64, idx: usize) -> Result<B::Batch> {
        let mut queue = self.queue.borrow_mut();
        if queue.due == (Place { epoch, idx })
            && let Ok(batch) = queue.receiver.recv()
        {
            queue.due = queue.due.next(self.n_batches);
            return batch;
        }
        self.source.batch(epoch, idx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::ThreadId;

    /// Batch (e, i) is 100 e + i and the thread that made it; one of them cannot be made.
    struct Counting {
        n_batches: usize,
        broken: Option<Place>,
        n_made: AtomicUsize,
    }

    impl Counting {
        fn new(n_batches: usize, broken: Option<Place>) -> Self {
            Counting { n_batches, broken, n_made: AtomicUsize::new(0) }
        }
    }

    impl Batches for Counting {
        type Batch = (u64, ThreadId);

        fn n_batches(&self) -> usize {
            self.n_batches
        }

        fn batch(&self, epoch: u64, idx: usize) -> Result<(u64, ThreadId)> {
            self.n_made.fetch_add(1, Ordering::SeqCst);
            match self.broken {
                Some(place) if place == (Place { epoch, idx }) => Err(Error::config("idx", "one that can be made", idx)),
                _ if idx < self.n_batches => Ok((100 * epoch + idx as u64, std::thread::current().id())),
                _ => Err(Error::config("idx", format!("below {}", self.n_batches), idx)),
            }
        }
    }

    #[test]
    fn batches_are_the_sources_and_made_elsewhere() {
        for (first, n_ahead) in [(Place { epoch: 0, idx: 0 }, 1), (Place { epoch: 0, idx: 0 }, 3), (Place { epoch: 1, idx: 4 }, 2)] {
            let source = Counting::new(5, None);
            prefetched(&source, first, 4, n_ahead, |batches| {
                assert_eq!(batches.n_batches(), 5);
                let mut place = first;
                while place.epoch < 4 {
                    let (value, thread) = batches.batch(place.epoch, place.idx).unwrap();
                    assert_eq!(value, 100 * place.epoch + place.idx as u64);
                    assert_ne!(thread, std::thread::current().id());
                    place = place.next(5);
                }
                // After the end, and out of order, on the spot.
                for (epoch, idx) in [(4, 0), (0, 3)] {
                    assert_eq!(batches.batch(epoch, idx).unwrap(), (100 * epoch + idx as u64, std::thread::current().id()));
                }
                assert!(batches.batch(4, 5).is_err());
            });
        }
    }

    #[test]
    fn no_more_is_made_ahead_than_asked_for_and_the_thread_ends_with_the_work() {
        let source = Counting::new(1000, None);
        prefetched(&source, Place { epoch: 0, idx: 0 }, 1_000_000, 2, |batches| {
            (0..10).for_each(|idx| assert_eq!(batches.batch(0, idx).unwrap().0, idx as u64));
            std::thread::sleep(std::time::Duration::from_millis(20));
            // Ten were taken, two wait, and one waits to be put there.
            assert!(source.n_made.load(Ordering::SeqCst) <= 13);
        });
        assert!(source.n_made.load(Ordering::SeqCst) <= 13);
    }

    #[test]
    fn an_error_is_that_of_its_own_batch() {
        let source = Counting::new(5, Some(Place { epoch: 1, idx: 2 }));
        prefetched(&source, Place { epoch: 0, idx: 0 }, 3, 2, |batches| {
            for (epoch, idx) in (0..2).flat_map(|epoch| (0..5).map(move |idx| (epoch, idx))) {
                let found = batches.batch(epoch, idx);
                assert_eq!(found.is_err(), (epoch, idx) == (1, 2), "{epoch} {idx}");
            }
        });
    }

    #[test]
    fn a_source_without_batches_has_none() {
        let source = Counting::new(0, None);
        prefetched(&source, Place { epoch: 0, idx: 0 }, 3, 2, |batches| assert!(batches.batch(0, 0).is_err() && batches.n_batches() == 0));
    }
}
