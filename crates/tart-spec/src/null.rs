//! Decoding in which `null` stands for the zero value.

use serde::{Deserialize, Deserializer};

/// The value, or the default for `null`.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Declares structures all of whose fields may be `null` or absent. `Debug` is the structure's own affair.
macro_rules! wire {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Default, PartialEq, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_meta])* #[serde(deserialize_with = "crate::null::or_default")] pub $field: $type,)*
        }
    )*};
}

pub(crate) use wire;
