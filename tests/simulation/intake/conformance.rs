//! The conformance suite on the store of the simulation.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::inbox::{Subject, cases, id, source};
use shared::headers::Headers;
use triage_service::domain::outcome::OutboxEvent;
use triage_service::domain::record::Record;

use crate::intake::inbox::{Connection, SharedStore};
use crate::intake::judge::Judge;
use crate::intake::setup::{Entry, Kind, OUTCOMES};
use crate::intake::store::Store;
use crate::intake::transactions::Trouble;

/// Polls of a statement after which it would have been answered.
const PATIENCE: usize = 100;

/// All records of the cases have offsets below this one.
const OFFSETS: i64 = 20;
/// The record whose decision cannot be stored.
const SPOILT: i64 = OFFSETS - 1;

struct InMemory(SharedStore);

impl InMemory {
    fn new() -> Self {
        // The judge wants to know every record; what it says of these is of no interest here.
        let entry = |offset| Entry {
            record: Record {
                at: source(offset),
                timestamp_ms: None,
                key: None,
                value: None,
                headers: Headers::new(),
            },
            id: id(offset),
            key: 0,
            kind: if offset == SPOILT {
                Kind::Refused
            } else {
                Kind::Tombstone
            },
        };
        let log = (0..OFFSETS).map(entry).collect();
        Self(SharedStore::new(Store::new(Judge::new(&[log]))))
    }

    /// Serves all that can be served, and notices the clients that are gone.
    fn serve(&self) {
        let mut store = self.0.lock();
        for x in 0..store.transactions.len() {
            if store.transactions[x].is_orphan {
                store.terminate(x, Trouble::Unavailable);
            } else if !store.is_blocked(x) {
                store.serve(x);
            }
        }
    }

    /// Lets a case go on for as long as there is something to serve.
    fn run(&self, case: impl Future<Output = ()>) {
        let mut case = pin!(case);
        for _ in 0..100 * PATIENCE {
            if case.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                return;
            }
            self.serve();
        }
        panic!("the case waits for ever");
    }
}

impl Subject for InMemory {
    type Inbox = Connection;

    fn worker(&self) -> Connection {
        let transaction = self.0.lock().open();
        Connection {
            store: self.0.clone(),
            transaction,
        }
    }

    async fn waits(&self, mut statement: impl Future + Unpin) -> bool {
        let mut polls = 0;
        poll_fn(|context| {
            polls += 1;
            match pin!(&mut statement).poll(context) {
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending if polls > PATIENCE => Poll::Ready(true),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn spoilt(&self, row: OutboxEvent) -> OutboxEvent {
        OutboxEvent {
            topic: OUTCOMES.to_owned(),
            source: source(SPOILT),
            ..row
        }
    }

    async fn cut(&self) {
        let mut store = self.0.lock();
        let open: Vec<usize> = store.open_ones().map(|(x, _)| x).collect();
        for x in open {
            store.terminate(x, Trouble::Unclear);
        }
    }

    async fn appended(&self) -> Vec<i64> {
        self.0.lock().appended()
    }
}

macro_rules! on_the_simulated_store {
    ($($case:ident)+) => {
        $(#[test]
        fn $case() {
            let memory = InMemory::new();
            memory.run(cases::$case(&memory));
        })+
    };
}

crate::inbox_cases!(on_the_simulated_store);
