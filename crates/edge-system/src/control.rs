//! What the camera program asks of the init that started it, because only the system may do it.
//!
//! A request is one packet on a socket of type `SOCK_SEQPACKET`, whose path the camera program finds in its environment
//! ([`SOCKET`]): the text of an [`Order`], for [`Order::System`] with one descriptor of the bundle's file. The answer is one
//! packet of text, at most [`MAX_TEXT`] bytes: `ok` or `no`, a blank, and what was done or why not, for people.

use std::fmt;
use std::str::FromStr;

/// Name of the environment's variable with the socket's path; not set where orders are not taken.
pub const SOCKET: &str = "EDGE_CONTROL";

/// The longest packet in bytes.
pub const MAX_TEXT: usize = 4096;

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Set the wall clock.
    Time {
        /// Nanoseconds since 1970-01-01 UTC.
        unix_ns: u64,
    },
    /// Start the device anew.
    Reboot,
    /// Switch it off.
    Off,
    /// Check the system bundle that came along and put it into the slot that does not run.
    System,
}

impl Order {
    /// What it is, for people: "… is refused".
    pub fn about(&self) -> &'static str {
        match self {
            Order::Time { .. } => "setting the clock",
            Order::Reboot => "starting the device anew",
            Order::Off => "switching the device off",
            Order::System => "an update of the system",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Time { unix_ns } => write!(f, "time {unix_ns}"),
            Order::Reboot => f.write_str("reboot"),
            Order::Off => f.write_str("off"),
            Order::System => f.write_str("system"),
        }
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Order, String> {
        let unknown = || format!("{text:?} is no order that is known here");
        match text {
            "reboot" => Ok(Order::Reboot),
            "off" => Ok(Order::Off),
            "system" => Ok(Order::System),
            _ => {
                let unix_ns = text.strip_prefix("time ").and_then(|number| number.parse().ok());
                unix_ns.map(|unix_ns| Order::Time { unix_ns }).ok_or_else(unknown)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_an_order_or_an_error(text in "(time |reboot|off|system)?\\PC{0,25}") {
            if let Ok(order) = text.parse::<Order>() {
                prop_assert_eq!(order.to_string().parse(), Ok(order));
            }
        }

        #[test]
        fn orders_come_back(unix_ns: u64) {
            for order in [Order::Time { unix_ns }, Order::Reboot, Order::Off, Order::System] {
                prop_assert_eq!(order.to_string().parse(), Ok(order));
                prop_assert!(order.to_string().len() < MAX_TEXT);
            }
        }
    }
}
