//! The nouns of the house: kinds, objects, selectors, quantities, plans. No I/O and no clock.

pub mod avoid;
pub mod controller;
pub mod diagnosis;
pub mod fence;
pub mod fit;
pub mod kinds;
pub mod names;
pub mod object;
pub mod plan;
pub mod pod;
pub mod quantity;
pub mod repair;
pub mod schema;
pub mod selector;
pub mod storage;
pub mod syntax;
pub mod texts;
pub mod time;
pub mod tiny;
pub mod tree;
pub mod usage;
pub mod world;

pub use controller::{Controller, Watch};
pub use names::{Gvr, Key};
pub use object::{Meta, Object, Owner};
pub use plan::{Act, EventNote, Plan, Precondition, Propagation, Write};
pub use quantity::Quantity;
pub use selector::{FieldSelector, Selector};
pub use texts::Texts;
pub use world::{Resource, World};

/// A point in wall-clock time, as objects carry it.
pub type Time = jiff::Timestamp;
/// A JSON tree; exists on the write path only.
pub type Tree = serde_json::Value;
