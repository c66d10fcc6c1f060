//! Benchmarks: the same work done in several ways, in turns, each in a process of its own.
//!
//! | file | job |
//! |---|---|
//! | `arm` | the ways of running a model |
//! | `schedule` | in which order they run |
//! | `campaign` | runs them and gathers what they say |
//! | `spawn` | one arm as a process, seen from outside |
//! | `work` | what arms compute, and what each did |
//! | `child` | one arm as a process, seen from inside |
//! | `alone` | the same for the arms in which llama.cpp runs without hypura |
//! | `memcap` | a memory control group around it |
//! | `disk` | raw bandwidth, page cache and read-ahead |
//! | `snapshot`, `procfs` | counters at a moment; how the kernel writes them |
//! | `stats`, `roofline`, `summary` | from runs to figures |
//! | `prediction` | what was said of an arm, and how far off that was |
//! | `predict` | what the planner says of the measured arm, and how far off that is |
//! | `tokens` | the random tokens that arms compute |
//! | `soak` | one arm for a long time, with prompts of many lengths |
//! | `report`, `table` | the result for programs and for people |
//! | `routes` | traces that force the routers' choices |
//! | `io` | raw reads by size, depth and reader |

mod alone;
mod arm;
mod campaign;
mod child;
mod disk;
pub mod io;
mod memcap;
mod predict;
mod prediction;
mod procfs;
mod report;
mod roofline;
mod routes;
mod schedule;
mod snapshot;
mod soak;
mod spawn;
mod stats;
mod summary;
mod table;
mod tokens;
mod work;

pub use arm::Arm;
pub use campaign::{Job, run};
pub use child::{run_arm, wait_for_go};
pub use memcap::{Memcap, MemcapError};
pub use predict::Predictor;
pub use prediction::{Prediction, PredictionError};
pub use report::{Comparison, Report};
pub use roofline::Roofline;
pub use routes::read_trace;
pub use spawn::{Launcher, Stop, Stopped};
pub use stats::Spread;
pub use table::{Look, render};
pub use work::{ArmRun, Work};
