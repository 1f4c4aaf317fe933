//! [`Calendar`]: the times of a schedule.

use std::time::SystemTime;

use croner::{
    Cron,
    parser::{CronParser, Year},
};
use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

/// The times of a schedule: a cron expression in a time zone.
///
/// An expression has the five fields minute, hour, day of the month, month and day of the week, and may have one for seconds
/// in front. `@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly` are short for one. A day matches if the day of the month or
/// the day of the week does, unless one of the two is `*`.
///
/// The time zone is a name of the IANA, such as `Europe/Berlin`. The rules of all zones are a part of this library, so that
/// the system needs none. Where the clock is put forward or back, an expression with fixed hours, such as `30 2 * * *`, has
/// each of its local times once: a time that does not exist is at the first instant after the gap, and of a time that
/// occurs twice the first one counts. An expression with `*` or `/` in its hours, such as `*/15 * * * *`, follows real time: it
/// leaves out what does not exist, and has what occurs twice two times.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use agentflow::task::Calendar;
///
/// let weekdays = Calendar::new("0 9 * * 1-5", "Europe/Berlin")?;
/// // Friday, 2026-03-27, 10:00 in Berlin. On Sunday the clock is put forward.
/// let friday = SystemTime::UNIX_EPOCH + Duration::from_secs(1_774_602_000);
/// let monday = weekdays.next_after(friday).unwrap();
/// assert_eq!(monday.duration_since(friday).unwrap(), Duration::from_hours(70));
///
/// let error = Calendar::new("0 9 * *", "UTC").unwrap_err();
/// assert!(error.to_string().starts_with("`0 9 * *` is not a cron expression"));
/// # Ok::<(), agentflow::task::InvalidCalendar>(())
/// ```
#[derive(Clone, Debug)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
    /// Set if the hours have `*` or `/`.
    follows_real_time: bool,
}

/// The error of an expression or a time zone that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCalendar {
    /// The expression is not one.
    #[error("`{expression}` is not a cron expression: {reason}")]
    #[non_exhaustive]
    Expression {
        /// The expression.
        expression: Box<str>,
        /// The mistake.
        reason: Box<str>,
    },
    /// There is no time that matches the expression, such as the 30th of February.
    #[error("no time ever matches the cron expression `{expression}`")]
    #[non_exhaustive]
    Never {
        /// The expression.
        expression: Box<str>,
    },
    /// There is no such time zone.
    #[error("there is no time zone `{zone}`: write a name of the IANA, such as `Europe/Berlin`")]
    #[non_exhaustive]
    Zone {
        /// The name.
        zone: Box<str>,
    },
}

impl Calendar {
    /// Creates the calendar of a cron expression in a time zone.
    ///
    /// # Errors
    ///
    /// [`InvalidCalendar`] if the expression or the name of the zone is wrong, or no time ever matches.
    pub fn new(expression: &str, zone: &str) -> Result<Self, InvalidCalendar> {
        // A year would end the schedule, and a seventh field is more likely a mistake.
        let cron = CronParser::builder().year(Year::Disallowed).build().parse(expression);
        let cron = cron.map_err(|error| InvalidCalendar::Expression {
            expression: expression.into(),
            reason: error.to_string().into(),
        })?;
        let zone = TimeZoneDatabase::bundled().get(zone).map_err(|_| InvalidCalendar::Zone { zone: zone.into() })?;
        let hours = &cron.pattern.hours;
        let follows_real_time = hours.from_wildcard || hours.step > 1;
        let calendar = Self { cron, zone, follows_real_time };
        if calendar.next_after(SystemTime::UNIX_EPOCH).is_none() {
            return Err(InvalidCalendar::Never { expression: expression.into() });
        }
        Ok(calendar)
    }

    /// Returns the first time after this one, or `None` if there is none in the range of years that are counted.
    #[must_use]
    pub fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
        let time = Timestamp::try_from(time).ok()?;
        let next = if self.follows_real_time {
            let zoned = time.to_zoned(self.zone.clone());
            self.cron.find_next_occurrence(&zoned, false).ok()?.timestamp()
        } else {
            self.instant(self.local_after(time)?)?
        };
        Some(next.into())
    }

    /// Returns the last time that is not after this one: the one that fires for all that were missed until then.
    #[must_use]
    pub fn latest_until(&self, time: SystemTime) -> Option<SystemTime> {
        let time = Timestamp::try_from(time).ok()?;
        let latest = if self.follows_real_time {
            let zoned = time.to_zoned(self.zone.clone());
            self.cron.find_previous_occurrence(&zoned, true).ok()?.timestamp()
        } else {
            let next = self.local_after(time)?;
            self.instant(self.cron.find_previous_occurrence(&next, false).ok()?)?
        };
        Some(latest.into())
    }

    /// Returns the latest time that was missed, of those from `due` on until `now`: a due time that has passed, or a later
    /// one. `None` if `due` is in the future.
    #[must_use]
    pub fn latest_missed(&self, due: SystemTime, now: SystemTime) -> Option<SystemTime> {
        if now < due {
            return None;
        }
        // An expression that was changed meanwhile may have no time between the two.
        Some(self.latest_until(now).map_or(due, |latest| latest.max(due)))
    }

    /// Returns the first local time of the expression that is after an instant.
    ///
    /// Later local times are never earlier instants, and no local time up to that of `time` is an instant after it. In an hour
    /// that occurs for the second time, the local times of the first time are passed over.
    fn local_after(&self, time: Timestamp) -> Option<DateTime> {
        let mut local = self.zone.to_datetime(time);
        loop {
            local = self.cron.find_next_occurrence(&local, false).ok()?;
            if self.instant(local)? > time {
                return Some(local);
            }
        }
    }

    /// Returns the instant of a local time: the first one if it occurs twice, and the end of the gap if it does not exist.
    fn instant(&self, local: DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        if !matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. }) {
            return ambiguous.earlier().ok();
        }
        // In a gap the earlier of the two readings is an instant before it, from which on the next change ends it.
        let before = ambiguous.earlier().ok()?;
        self.zone.following(before).next().map(|change| change.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Zoned, civil::date};

    use super::*;

    fn berlin(expression: &str) -> Calendar {
        Calendar::new(expression, "Europe/Berlin").expect("a calendar")
    }

    /// Returns the instant of a text such as `2026-03-29T03:00+02:00[Europe/Berlin]`.
    fn at(text: &str) -> SystemTime {
        text.parse::<Zoned>().expect("a time").timestamp().into()
    }

    fn in_berlin(time: SystemTime) -> String {
        let zone = TimeZoneDatabase::bundled().get("Europe/Berlin").expect("a zone");
        let zoned = Timestamp::try_from(time).expect("a time").to_zoned(zone);
        zoned.strftime("%d %H:%M:%S %Z").to_string()
    }

    /// Returns the times after the first one, up to and with the last one.
    fn times(expression: &str, from: &str, to: &str) -> Vec<String> {
        let calendar = berlin(expression);
        let until = at(to);
        let after = |time: &SystemTime| calendar.next_after(*time);
        let times: Vec<_> =
            std::iter::successors(calendar.next_after(at(from)), after).take_while(|time| *time <= until).collect();
        // Backwards the same times are found.
        for (index, time) in times.iter().enumerate() {
            let end = times.get(index + 1).copied().unwrap_or(until + std::time::Duration::from_nanos(1));
            for now in [*time, end - std::time::Duration::from_nanos(1)] {
                assert_eq!(
                    calendar.latest_until(now).map(in_berlin),
                    Some(in_berlin(*time)),
                    "{expression} at {now:?}"
                );
            }
        }
        times.into_iter().map(in_berlin).collect()
    }

    const BEFORE_GAP: &str = "2026-03-28T12:00[Europe/Berlin]";
    const AFTER_GAP: &str = "2026-03-30T12:00[Europe/Berlin]";
    const BEFORE_FOLD: &str = "2026-10-24T12:00[Europe/Berlin]";
    const AFTER_FOLD: &str = "2026-10-26T12:00[Europe/Berlin]";

    #[test]
    fn a_local_time_in_a_gap_is_the_first_instant_after_it() {
        assert_eq!(times("30 2 * * *", BEFORE_GAP, AFTER_GAP), ["29 03:00:00 CEST", "30 02:30:00 CEST"]);
        // Several local times in the gap are one instant, and so is one right after it.
        assert_eq!(
            times("*/20 2,3 * * *", BEFORE_GAP, "2026-03-29T12:00[Europe/Berlin]"),
            ["29 03:00:00 CEST", "29 03:20:00 CEST", "29 03:40:00 CEST"]
        );
        assert_eq!(
            times("0 1-4 * * *", BEFORE_GAP, "2026-03-29T12:00[Europe/Berlin]"),
            ["29 01:00:00 CET", "29 03:00:00 CEST", "29 04:00:00 CEST"]
        );
    }

    #[test]
    fn a_local_time_that_occurs_twice_fires_once() {
        assert_eq!(times("30 2 * * *", BEFORE_FOLD, AFTER_FOLD), ["25 02:30:00 CEST", "26 02:30:00 CET"]);
        assert_eq!(
            times("0,30 2 * * *", BEFORE_FOLD, "2026-10-25T12:00[Europe/Berlin]"),
            ["25 02:00:00 CEST", "25 02:30:00 CEST"]
        );
        // A process that starts in the second hour finds that it has missed the first.
        let calendar = berlin("45 2 * * *");
        let second = at("2026-10-25T02:10+01:00[Europe/Berlin]");
        assert_eq!(calendar.next_after(second).map(in_berlin), Some("26 02:45:00 CET".to_owned()));
        assert_eq!(calendar.latest_until(second).map(in_berlin), Some("25 02:45:00 CEST".to_owned()));
    }

    #[test]
    fn hours_with_a_star_or_a_slash_follow_real_time() {
        let day = "2026-03-29T04:00[Europe/Berlin]";
        assert_eq!(
            times("0 * * * *", "2026-03-29T00:00[Europe/Berlin]", day),
            ["29 01:00:00 CET", "29 03:00:00 CEST", "29 04:00:00 CEST"]
        );
        assert_eq!(
            times("0 */2 * * *", "2026-03-28T23:00[Europe/Berlin]", day),
            ["29 00:00:00 CET", "29 04:00:00 CEST"]
        );
        assert_eq!(
            times("30 * * * *", "2026-10-25T01:00[Europe/Berlin]", "2026-10-25T03:30[Europe/Berlin]"),
            ["25 01:30:00 CEST", "25 02:30:00 CEST", "25 02:30:00 CET", "25 03:30:00 CET"]
        );
    }

    #[test]
    fn a_time_zone_may_change_its_date() {
        // Samoa had no 30 December 2011.
        let calendar = Calendar::new("0 12 30 12 *", "Pacific/Apia").expect("a calendar");
        let due = calendar.next_after(at("2011-12-29T13:00[Pacific/Apia]")).expect("a time");
        assert_eq!(due, at("2011-12-31T00:00[Pacific/Apia]"));
    }

    #[test]
    fn the_latest_missed_time_stands_for_all() {
        let calendar = berlin("0 9 * * 1-5");
        let friday = at("2026-01-02T09:00[Europe/Berlin]");
        let missed = |now: &str| calendar.latest_missed(friday, at(now)).map(in_berlin);
        assert_eq!(missed("2026-01-02T08:59[Europe/Berlin]"), None);
        assert_eq!(missed("2026-01-02T09:00[Europe/Berlin]"), Some("02 09:00:00 CET".to_owned()));
        assert_eq!(missed("2026-01-04T09:00[Europe/Berlin]"), Some("02 09:00:00 CET".to_owned()));
        assert_eq!(missed("2026-01-20T08:00[Europe/Berlin]"), Some("19 09:00:00 CET".to_owned()));
    }

    #[test]
    fn days_and_seconds_are_as_in_cron() {
        let local = |expression: &str, from: DateTime| {
            let from = from.to_zoned(TimeZone::UTC).expect("a time").timestamp();
            let next = Calendar::new(expression, "UTC").expect("a calendar").next_after(from.into()).expect("a time");
            TimeZone::UTC.to_datetime(Timestamp::try_from(next).expect("a time"))
        };
        let new_year = date(2026, 1, 1).at(0, 0, 0, 0);
        assert_eq!(local("*/10 * * * * *", new_year), date(2026, 1, 1).at(0, 0, 10, 0));
        assert_eq!(local("0 0 13 * 5", new_year), date(2026, 1, 2).at(0, 0, 0, 0), "a Friday, or a 13th");
        assert_eq!(local("0 0 29 2 *", new_year), date(2028, 2, 29).at(0, 0, 0, 0));
        assert_eq!(local("@daily", new_year), date(2026, 1, 2).at(0, 0, 0, 0));
        assert_eq!(local("0 9 * * mon-fri", new_year), date(2026, 1, 1).at(9, 0, 0, 0));
    }

    #[test]
    fn a_mistake_is_a_typed_error() {
        let error = |expression: &str, zone: &str| Calendar::new(expression, zone).expect_err("a mistake");
        for expression in ["", "* * * *", "60 * * * *", "a b c d e", "0 9 * * 1 2026 *", "0 0 * * 8"] {
            assert!(matches!(error(expression, "UTC"), InvalidCalendar::Expression { .. }), "{expression}");
        }
        assert_eq!(error("0 0 30 2 *", "UTC"), InvalidCalendar::Never { expression: "0 0 30 2 *".into() });
        assert_eq!(
            error("0 0 * * *", "Berlin").to_string(),
            "there is no time zone `Berlin`: write a name of the IANA, such as `Europe/Berlin`"
        );
    }
}
