//! Rows in the producers' hands, by an index that travels through the client as its opaque value.

use uuid::Uuid;

use crate::domain::event::LaneKey;
use crate::domain::topic::Lane;

/// A row in a producer's hands.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) lane: Lane,
    pub(super) generation: u64,
    pub(super) bucket: i16,
    pub(super) epoch: i64,
    pub(super) id: i64,
    pub(super) event_id: Uuid,
    pub(super) topic: usize,
    pub(super) partition: i32,
    /// Its key, if it is a side row.
    pub(super) side: Option<LaneKey>,
    /// Nothing else could be at fault for a refusal.
    pub(super) is_alone: bool,
}

/// A table with stable places.
#[derive(Debug, Default)]
pub(super) struct Flights {
    places: Vec<Option<Flight>>,
    free: Vec<usize>,
}

impl Flights {
    pub(super) fn insert(&mut self, flight: Flight) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(flight);
                place
            }
            None => {
                self.places.push(Some(flight));
                self.places.len() - 1
            }
        }
    }

    /// Takes out what this life of a producer was given. Another life's report for the place is not its.
    pub(super) fn take(&mut self, place: usize, lane: Lane, generation: u64) -> Option<Flight> {
        let flight = self.places.get_mut(place)?;
        if !flight
            .as_ref()
            .is_some_and(|f| f.lane == lane && f.generation == generation)
        {
            return None;
        }
        self.free.push(place);
        flight.take()
    }

    /// Takes out all that earlier lives of a producer hold.
    pub(super) fn take_before(&mut self, lane: Lane, generation: u64) -> Vec<Flight> {
        let mut taken = Vec::new();
        for (place, flight) in self.places.iter_mut().enumerate() {
            if flight
                .as_ref()
                .is_some_and(|f| f.lane == lane && f.generation < generation)
            {
                taken.extend(flight.take());
                self.free.push(place);
            }
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
