//! The starter bundle, as it stands in `packaging/policy-starter`: what `casemate policy init` writes and labs begin with.

/// Moments of business hours in UTC, as the bundle's tests name them: a working day and a holiday. In another time zone the
/// same hours are other moments.
pub(crate) const AT_THE_DESK: [&str; 2] = ["2025-06-02T10:00:00Z", "2026-12-25T10:00:00Z"];

/// Path in the bundle, and text. The manifest is made where the files are written.
pub(crate) const FILES: [(&str, &str); 5] = [
    ("entities.json", include_str!("../../../../packaging/policy-starter/entities.json")),
    ("transfers.cedar", include_str!("../../../../packaging/policy-starter/transfers.cedar")),
    ("keys.cedar", include_str!("../../../../packaging/policy-starter/keys.cedar")),
    ("tests/keys.json", include_str!("../../../../packaging/policy-starter/tests/keys.json")),
    ("tests/transfers.json", include_str!("../../../../packaging/policy-starter/tests/transfers.json")),
];
