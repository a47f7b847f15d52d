//! The partitions that are ours, and what is buffered of them.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::domain::record::Record;

use super::watermark::{Sequence, Watermark};
use super::{Assignment, Limits};

/// All partitions held.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    held: BTreeMap<i32, Held>,
    /// Where the next batch begins to look, so that each partition gets its turn.
    next: i32,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) assignment: Assignment,
    pub(super) watermark: Watermark,
    buffer: VecDeque<(Sequence, Record)>,
    buffer_bytes: usize,
    /// Is being given back: nothing new is begun, and what arrives is dropped.
    is_leaving: bool,
    is_paused: bool,
}

/// The assignments that a batch belongs to, and its records.
pub(super) type Taken = (BTreeMap<i32, Assignment>, Vec<(Sequence, Record)>);

impl Assignments {
    pub(super) fn begin(&mut self, partition: i32, assignment: Assignment) {
        let held = Held {
            assignment,
            watermark: Watermark::default(),
            buffer: VecDeque::new(),
            buffer_bytes: 0,
            is_leaving: false,
            is_paused: false,
        };
        self.held.insert(partition, held);
    }

    /// Buffers records; those of a partition that is leaving or gone belong to its next owner.
    pub(super) fn receive(&mut self, records: Vec<Record>) {
        for record in records {
            if let Some(held) = self.held.get_mut(&record.at.partition).filter(|held| !held.is_leaving) {
                let sequence = held.watermark.deliver(record.at.offset);
                held.buffer_bytes += record.size_bytes();
                held.buffer.push_back((sequence, record));
            }
        }
    }

    pub(super) fn leave(&mut self, partitions: &[i32]) {
        for partition in partitions {
            if let Some(held) = self.held.get_mut(partition) {
                held.leave();
            }
        }
    }

    pub(super) fn leave_all(&mut self) {
        self.held.values_mut().for_each(Held::leave);
    }

    pub(super) fn end(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.held.remove(partition);
        }
    }

    pub(super) fn get(&self, partition: i32) -> Option<&Held> {
        self.held.get(&partition)
    }

    pub(super) fn get_mut(&mut self, partition: i32) -> Option<&mut Held> {
        self.held.get_mut(&partition)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, &Held)> {
        self.held.iter().map(|(&partition, held)| (partition, held))
    }

    /// Whether something new may be begun under this assignment.
    pub(super) fn is_live(&self, partition: i32, assignment: Assignment) -> bool {
        self.held
            .get(&partition)
            .is_some_and(|held| held.assignment == assignment && !held.is_leaving)
    }

    /// Takes records of partitions that are not busy until the batch is full or nothing more is
    /// buffered. None if nothing is.
    pub(super) fn take_batch(&mut self, limits: &Limits, busy: &HashSet<(i32, Assignment)>) -> Option<Taken> {
        let turn: Vec<i32> = self
            .held
            .range(self.next..)
            .chain(self.held.range(..self.next))
            .map(|(&p, _)| p)
            .collect();
        let mut owners = BTreeMap::new();
        let mut taken: BTreeMap<i32, Vec<(Sequence, Record)>> = BTreeMap::new();
        let (mut records, mut bytes) = (0, 0);
        for partition in turn {
            let held = self.held.get_mut(&partition).expect("listed from the same map");
            if held.is_leaving || held.buffer.is_empty() || busy.contains(&(partition, held.assignment)) {
                continue;
            }
            let mut entries = Vec::new();
            while let Some((_, record)) = held.buffer.front() {
                let size = record.size_bytes();
                if records >= limits.batch_records || (records > 0 && bytes + size > limits.batch_bytes) {
                    break;
                }
                records += 1;
                bytes += size;
                held.buffer_bytes -= size;
                entries.extend(held.buffer.pop_front());
            }
            if entries.is_empty() {
                break;
            }
            owners.insert(partition, held.assignment);
            taken.insert(partition, entries);
            self.next = partition.wrapping_add(1);
            if !held.buffer.is_empty() {
                break; // full
            }
        }
        (!owners.is_empty()).then(|| (owners, taken.into_values().flatten().collect()))
    }

    /// Records and bytes that are buffered.
    fn buffered(&self) -> (usize, usize) {
        let sizes = self.held.values().map(|held| (held.buffer.len(), held.buffer_bytes));
        sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
    }

    /// Whether a part of the buffers is in use: one divided by this.
    pub(super) fn use_more_than(&self, limits: &Limits, divisor: usize) -> bool {
        let (records, bytes) = self.buffered();
        records > limits.buffer_records / divisor || bytes > limits.buffer_bytes / divisor
    }

    /// Which partitions are to be paused, and which resumed.
    ///
    /// A pause throws away what the client has fetched ahead, so it must not be taken lightly: up to half of the
    /// buffers are anybody's, beyond that each partition has an equal share. It goes on at half of its share.
    pub(super) fn throttle(&mut self, limits: &Limits, waiting: &HashSet<(i32, Assignment)>) -> (Vec<i32>, Vec<i32>) {
        let shares = self.held.len().max(1);
        let (records_max, bytes_max) = (
            (limits.buffer_records / shares).max(1),
            (limits.buffer_bytes / shares).max(1),
        );
        let (is_half_full, is_full) = (self.use_more_than(limits, 2), self.use_more_than(limits, 1));
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (&partition, held) in self.held.iter_mut().filter(|(_, held)| !held.is_leaving) {
            let has_more_than =
                |divisor| held.buffer.len() > records_max / divisor || held.buffer_bytes > bytes_max / divisor;
            let is_over = if held.is_paused {
                is_full || has_more_than(2)
            } else {
                is_half_full && has_more_than(1) || is_full && !held.buffer.is_empty()
            };
            let want = is_over || waiting.contains(&(partition, held.assignment));
            if want != held.is_paused {
                held.is_paused = want;
                if want {
                    pause.push(partition)
                } else {
                    resume.push(partition)
                }
            }
        }
        (pause, resume)
    }
}

impl Held {
    fn leave(&mut self) {
        self.is_leaving = true;
        self.buffer.clear();
        self.buffer_bytes = 0;
    }
}
