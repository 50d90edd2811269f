//! Where an order stands, what may follow, and who may say so.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::auth::Role;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Taken.
    Created,
    /// The customer is paying.
    Payment,
    /// Paid, and for release.
    Paid,
    /// With the customer.
    Released,
    /// Not wanted any more.
    Cancelled,
}

impl Status {
    pub(crate) const ALL: [Self; 5] = [Self::Created, Self::Payment, Self::Paid, Self::Released, Self::Cancelled];
    /// Those that somebody has to do something about.
    pub(crate) const OPEN: [Self; 3] = [Self::Created, Self::Payment, Self::Paid];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Payment => "payment",
            Self::Paid => "paid",
            Self::Released => "released",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether `to` may follow.
    pub(super) fn leads_to(self, to: Self) -> bool {
        match to {
            Self::Created => false,
            Self::Payment => self == Self::Created,
            Self::Paid => self == Self::Payment,
            Self::Released => self == Self::Paid,
            Self::Cancelled => Self::OPEN.contains(&self),
        }
    }

    /// Whether this role may bring an order from here to `to`, if it leads there at all.
    pub(super) fn may_be_moved(self, to: Self, role: Role) -> bool {
        match to {
            // What was paid has to be paid back.
            Self::Cancelled if self == Self::Paid => role == Role::Manager,
            Self::Created | Self::Payment | Self::Paid | Self::Cancelled => role.sells(),
            Self::Released => role.releases(),
        }
    }

    /// What to tell those who may not.
    pub(super) fn who_moves(self, to: Self) -> &'static str {
        match to {
            Self::Cancelled if self == Self::Paid => "only the manager cancels an order that was paid",
            Self::Cancelled => "only a cashier or the manager cancels orders",
            Self::Created | Self::Payment | Self::Paid => "only a cashier or the manager takes payments",
            Self::Released => "only the releasing desk or the manager releases orders",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| format!("\"{text}\" is not a status; they are created, payment, paid, released, cancelled"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_goes_forward_step_by_step_or_is_cancelled() {
        let allowed: Vec<_> = Status::ALL
            .into_iter()
            .flat_map(|from| Status::ALL.into_iter().map(move |to| (from, to)))
            .filter(|(from, to)| from.leads_to(*to))
            .map(|(from, to)| format!("{from}-{to}"))
            .collect();
        let expected = [
            "created-payment",
            "created-cancelled",
            "payment-paid",
            "payment-cancelled",
            "paid-released",
            "paid-cancelled",
        ];
        assert_eq!(allowed, expected);
    }

    #[test]
    fn each_role_moves_only_what_is_its_own() {
        let allowed = |role| {
            Status::ALL
                .into_iter()
                .flat_map(|from| Status::ALL.into_iter().map(move |to| (from, to)))
                .filter(|(from, to)| from.leads_to(*to) && from.may_be_moved(*to, role))
                .map(|(from, to)| format!("{from}-{to}"))
                .collect::<Vec<_>>()
        };
        let cashier = ["created-payment", "created-cancelled", "payment-paid", "payment-cancelled"];
        assert_eq!(allowed(Role::Cashier), cashier);
        assert_eq!(allowed(Role::Releasing), ["paid-released"]);
        assert_eq!(allowed(Role::Manager).len(), 6);
    }

    #[test]
    fn names_read_back() {
        for status in Status::ALL {
            assert_eq!(status.to_string().parse(), Ok(status));
        }
        assert!("Paid".parse::<Status>().unwrap_err().contains("\"Paid\" is not a status"));
    }
}
