//! The cases, by statement. Each begins with an empty store.

mod asking;
mod crashes;
mod leases;
mod marking;
mod side;

pub use asking::*;
pub use crashes::*;
pub use leases::*;
pub use marking::*;
pub use side::*;
