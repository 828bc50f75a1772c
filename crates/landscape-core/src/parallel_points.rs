//! Many points at once: forks of an objective measure points side by side, with the bits of one after the other.
//!
//! Every worker has a rayon pool of its own, and the pools share the caller's threads out among them. With one thread each, which is
//! the rule where there are as many points as threads, the ops inside run without a barrier and find their weights in that core's
//! caches. Results are handed on in the order of the points whatever order they come in, so records are written as one after the
//! other would write them; and since no bit of an op depends on the number of threads, neither does one of the results.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// An objective that can be had more than once.
pub trait Fork: Sized {
    /// Another one at the same point, which gives the same bits: it shares what never changes, and has weights, statistics and
    /// scratch memory of its own.
    fn fork(&self) -> Self;

    /// Bytes that one of them takes while it measures batches of `n_examples`.
    fn fork_bytes(&self, n_examples: usize) -> usize;
}

/// How many forks measure at once: one per thread of the caller's rayon pool, as many as there are points, as many as fit into
/// `memory_bytes` at `fork_bytes` each; never less than one.
///
/// ```
/// use landscape_core::parallel_points::n_forks;
/// assert_eq!(n_forks(100, 1 << 20, 1 << 40), rayon::current_num_threads().min(100));
/// assert_eq!(n_forks(100, 1 << 20, 1 << 10), 1);
/// ```
pub fn n_forks(n_points: usize, fork_bytes: usize, memory_bytes: usize) -> usize {
    let fitting = memory_bytes.checked_div(fork_bytes).unwrap_or(usize::MAX);
    rayon::current_num_threads().min(n_points).min(fitting).max(1)
}

/// Measures the points `range` on `objective` and `n_forks − 1` forks of it, and hands every result to `sink` in the order of the points.
///
/// `measure(objective, idx)` goes to point `idx` and measures there; it must not depend on where the objective stood before. Every fork
/// takes the next point as soon as it is done with one. Where `objective` stands afterwards is not said.
///
/// # Errors
/// The error of the first point (in their order) that fails, or of the sink; points after it are not handed on. [`Error::Threads`] if
/// the system gives no threads.
pub fn measure_points<O, R, E>(
    objective: &mut O,
    n_forks: usize,
    range: Range<usize>,
    measure: impl Fn(&mut O, usize) -> std::result::Result<R, E> + Sync,
    sink: impl FnMut(usize, R) -> std::result::Result<(), E>,
) -> std::result::Result<(), E>
where
    O: Fork + Send,
    R: Send,
    E: From<Error> + Send,
{
    let mut forks: Vec<O> = (1..n_forks.min(range.len())).map(|_| objective.fork()).collect();
    let mut workers: Vec<&mut O> = std::iter::once(objective).chain(forks.iter_mut()).collect();
    in_order(&mut workers, range, |worker, idx| measure(worker, idx), sink)
}

/// Does `work(worker, idx)` for every index of `range`, each as soon as a worker is free, and hands every result to `sink` in the order
/// of the indices, on the calling thread.
///
/// # Errors
/// The error of the first index that fails, or of the sink; later indices are not begun once it is known. [`Error::Threads`] if the
/// system gives no threads.
///
/// ```
/// use landscape_core::parallel_points::in_order;
/// let mut squares = Vec::new();
/// in_order(&mut [(), ()], 0..5, |_, idx| Ok(idx * idx), |_, square| {
///     squares.push(square);
///     Ok::<_, landscape_core::Error>(())
/// })?;
/// assert_eq!(squares, [0, 1, 4, 9, 16]);
/// # Ok::<(), landscape_core::Error>(())
/// ```
pub fn in_order<W, R, E>(
    workers: &mut [W],
    range: Range<usize>,
    work: impl Fn(&mut W, usize) -> std::result::Result<R, E> + Sync,
    mut sink: impl FnMut(usize, R) -> std::result::Result<(), E>,
) -> std::result::Result<(), E>
where
    W: Send,
    R: Send,
    E: From<Error> + Send,
{
    if let [worker] = workers {
        return range.into_iter().try_for_each(|idx| sink(idx, work(worker, idx)?));
    }
    let pools = pools(workers.len())?;
    let next = AtomicUsize::new(range.start);
    let stop = AtomicBool::new(workers.is_empty());
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for (worker, pool) in workers.iter_mut().zip(&pools) {
            let (next, stop, work, sender, end) = (&next, &stop, &work, sender.clone(), range.end);
            let run = move || {
                while !stop.load(Ordering::Relaxed) {
                    let idx = next.fetch_add(1, Ordering::Relaxed);
                    if idx >= end {
                        break;
                    }
                    let result = work(worker, idx);
                    if result.is_err() {
                        // Smaller indices were begun before this one and still come to their end.
                        stop.store(true, Ordering::Relaxed);
                    }
                    if sender.send((idx, result)).is_err() {
                        break;
                    }
                }
            };
            std::thread::Builder::new().spawn_scoped(scope, move || pool.install(run)).map_err(|e| {
                stop.store(true, Ordering::Relaxed);
                Error::Threads(e.to_string())
            })?;
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut due = range.start;
        for (idx, result) in receiver {
            waiting.insert(idx, result);
            while let Some(result) = waiting.remove(&due) {
                result.and_then(|result| sink(due, result)).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                due += 1;
            }
        }
        Ok(())
    })
}

/// A pool for each of `n` workers; together they have the threads of the caller's pool, and at least one each.
fn pools(n: usize) -> Result<Vec<rayon::ThreadPool>> {
    let n_threads = rayon::current_num_threads();
    let share = |idx: usize| (n_threads / n + usize::from(idx < n_threads % n)).max(1);
    let build = |idx| rayon::ThreadPoolBuilder::new().num_threads(share(idx)).build().map_err(|e| Error::Threads(e.to_string()));
    (0..n).map(build).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::{ControlPoints, Row};
    use crate::curve::{Curve, Segment};
    use crate::objective::{Objective, Pass};
    use crate::toy::{CurvyValley, Toy};
    use std::sync::Mutex;

    fn on_threads<R: Send>(n: usize, f: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(f)
    }

    #[test]
    fn forks_give_the_bits_of_one_after_the_other_in_their_order() {
        let mut valley = Toy::<_, f64>::new(CurvyValley);
        let rows = CurvyValley::MINIMA.map(|minimum| Row::Free(valley.point(&minimum).unwrap()));
        let points = ControlPoints::new(rows.to_vec()).unwrap();
        let mut measure_all = |n_forks: usize, range: Range<usize>| {
            let mut found = Vec::new();
            let at = |valley: &mut Toy<CurvyValley, f64>, idx: usize| {
                valley.move_to(&points, &Segment.coefficients(idx as f64 / 99.0)?)?;
                // Later points are done first, so that order is put to the test.
                std::thread::sleep(std::time::Duration::from_micros(300 - 3 * idx as u64));
                Ok::<_, Error>(valley.measure(&(), Pass::EVALUATE)?.nll().to_bits())
            };
            measure_points(&mut valley, n_forks, range, at, |idx, bits| {
                found.push((idx, bits));
                Ok(())
            })
            .unwrap();
            found
        };
        let expected = measure_all(1, 0..100);
        assert!(expected.iter().enumerate().all(|(i, (idx, _))| i == *idx) && expected.len() == 100);
        for n_forks in [0, 2, 3, 7, 200] {
            assert_eq!(measure_all(n_forks, 0..100), expected, "{n_forks}");
        }
        assert_eq!(measure_all(3, 40..100), expected[40..]);
        assert_eq!(measure_all(3, 5..5), []);
    }

    #[test]
    fn threads_are_shared_out_among_the_workers() {
        let seen = |n_threads: usize, n_workers: usize| {
            on_threads(n_threads, || {
                let seen = Mutex::new(vec![0; n_workers]);
                let mut workers: Vec<usize> = (0..n_workers).collect();
                let barrier = std::sync::Barrier::new(n_workers);
                let look = |worker: &mut usize, _| {
                    barrier.wait();
                    seen.lock().unwrap()[*worker] = rayon::current_num_threads();
                    Ok::<_, Error>(())
                };
                in_order(&mut workers, 0..n_workers, look, |_, ()| Ok(())).unwrap();
                seen.into_inner().unwrap()
            })
        };
        assert_eq!(seen(2, 1), [2]);
        assert_eq!(seen(2, 2), [1, 1]);
        assert_eq!(seen(5, 2), [3, 2]);
        assert_eq!(seen(1, 3), [1, 1, 1]);
    }

    #[test]
    fn the_first_error_in_order_is_the_answer_and_nothing_after_it_is_handed_on() {
        for n_workers in 1..5 {
            let n_begun = AtomicUsize::new(0);
            let mut handed_on = Vec::new();
            let mut workers = vec![(); n_workers];
            let work = |_: &mut (), idx: usize| {
                n_begun.fetch_add(1, Ordering::Relaxed);
                // Number 12 fails before number 11 does.
                std::thread::sleep(std::time::Duration::from_millis(if idx == 11 { 5 } else { 1 }));
                if idx == 11 || idx == 12 { Err(Error::config("idx", "another", idx)) } else { Ok(idx) }
            };
            let error = in_order(&mut workers, 0..1000, work, |_, idx| {
                handed_on.push(idx);
                Ok(())
            });
            assert!(error.unwrap_err().to_string().contains("got 11"), "{n_workers}");
            assert_eq!(handed_on, (0..11).collect::<Vec<_>>());
            assert!(n_begun.into_inner() < 40, "the rest is left");
        }
    }

    #[test]
    fn an_error_of_the_sink_ends_the_work() {
        for n_workers in 1..4 {
            let mut n_handed_on = 0;
            let error = in_order(
                &mut vec![(); n_workers],
                0..100_000,
                |_, idx| Ok(idx),
                |_, idx| {
                    n_handed_on += 1;
                    if idx == 3 { Err(Error::config("sink", "patient", idx)) } else { Ok(()) }
                },
            );
            assert!(error.unwrap_err().to_string().contains("`sink`"));
            assert_eq!(n_handed_on, 4);
        }
    }

    #[test]
    fn a_budget_bounds_the_forks_and_never_forbids_the_first() {
        on_threads(4, || {
            assert_eq!(n_forks(100, 10, 1000), 4);
            assert_eq!(n_forks(100, 10, 39), 3);
            assert_eq!(n_forks(100, 10, 9), 1);
            assert_eq!(n_forks(100, 10, 0), 1);
            assert_eq!(n_forks(2, 10, 1000), 2);
            assert_eq!(n_forks(0, 10, 1000), 1);
            assert_eq!(n_forks(100, 0, 0), 4);
        });
    }
}
