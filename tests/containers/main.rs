//! What only containers can show. They run on `STACK=containers` only.

mod shipped;
