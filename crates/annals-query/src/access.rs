//! What a caller may see of a resource: which rows, and which of their private columns.
//!
//! Who the caller is and which roles it has was decided before; here is only the outcome. A resource that is
//! not named is denied.

use std::collections::BTreeMap;

/// What a caller may see of one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Access {
    /// Which rows.
    pub rows: Rows,
    /// Which private columns of them; the others are null.
    pub private: Private,
}

/// Which rows a caller sees. Others are as if they did not exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Rows {
    /// None at all.
    #[default]
    None,
    /// Those whose owner column has this value; none where the table has no owner column.
    Own(String),
    /// All that the resource shows.
    All,
}

/// Which private columns a caller sees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Private {
    /// None: they are null.
    #[default]
    None,
    /// Those of rows whose owner column has this value.
    Own(String),
    /// All.
    All,
}

/// What a caller may see, by resource: the one asked for, and those that may be expanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope(BTreeMap<String, Access>);

impl Access {
    /// Every row with every column.
    #[must_use]
    pub fn all() -> Self {
        Self {
            rows: Rows::All,
            private: Private::All,
        }
    }

    /// Every row, no private column.
    #[must_use]
    pub fn public() -> Self {
        Self {
            rows: Rows::All,
            private: Private::None,
        }
    }

    /// The rows of this owner, with their private columns.
    pub fn own(owner: impl Into<String>) -> Self {
        let owner = owner.into();
        Self {
            rows: Rows::Own(owner.clone()),
            private: Private::Own(owner),
        }
    }
}

impl Scope {
    /// Sets what may be seen of a resource.
    #[must_use]
    pub fn with(mut self, resource: impl Into<String>, access: Access) -> Self {
        self.0.insert(resource.into(), access);
        self
    }

    /// What may be seen of a resource; nothing if it was never named.
    #[must_use]
    pub fn of(&self, resource: &str) -> Access {
        self.0.get(resource).cloned().unwrap_or_default()
    }
}
