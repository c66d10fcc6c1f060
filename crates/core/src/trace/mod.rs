//! Routing traces: which experts each token used in each layer, as JSON lines.
//!
//! The first line is the [`TraceHeader`], each further line one [`TraceToken`]:
//! ```json
//! {"format":"route-trace/1","model":"…","layers":48,"experts":128,"used":8,"expert_bytes":3059712}
//! {"phase":"decode","layers":[[0,[49,19],[0.7,0.3]],[1,[68,55]]]}
//! ```
//! A layer is `[layer, [expert ids]]` or `[layer, [expert ids], [router weights]]`; layers without experts
//! are left out. Compression is the caller's business.
//!
//! Invariants of what [`TraceReader`] returns and [`TraceWriter`] accepts: layers strictly increase and are
//! below `layers`; the ids of a layer are 1 to `used` distinct numbers below `experts`; there are as many
//! weights as ids, all finite, or none. A line is read only up to [`MAX_LINE_BYTES`], so a hostile file
//! cannot ask for more memory.

mod error;
mod header;
mod read;
mod tokens;
mod whole;
mod write;

pub use error::{FORMAT, MAX_LINE_BYTES, TraceError};
pub use header::{MAX_EXPERTS, MAX_LAYERS, TraceHeader};
pub use read::TraceReader;
pub use tokens::{LayerRoutes, Phase, TraceToken};
pub use whole::Trace;
pub use write::TraceWriter;
