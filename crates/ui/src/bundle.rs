//! Made by web/build.mjs: what the page consists of, by names that change with the contents.

use super::asset::Asset;

/// The page itself.
pub(super) const PAGE: Asset = Asset {
    name: "",
    content_type: "text/html; charset=utf-8",
    bytes: include_bytes!("../assets/index.html"),
    etag: "\"b85c950fbe8dcc54\"",
};

/// What it loads.
pub(super) const FILES: &[Asset] = &[
    Asset {
        name: "app-357ccebcbfdae8fa.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../assets/app.js"),
        etag: "\"357ccebcbfdae8fa\"",
    },
    Asset {
        name: "app-0c76185b9ca83872.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../assets/app.css"),
        etag: "\"0c76185b9ca83872\"",
    },
    Asset {
        name: "icon-af67c3c28b94b358.svg",
        content_type: "image/svg+xml",
        bytes: include_bytes!("../assets/icon.svg"),
        etag: "\"af67c3c28b94b358\"",
    },
    Asset {
        name: "licenses-d0ecd8f7f34d375f.txt",
        content_type: "text/plain; charset=utf-8",
        bytes: include_bytes!("../assets/licenses.txt"),
        etag: "\"d0ecd8f7f34d375f\"",
    },
];
