//! [`Items`]: the stored items.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    super::{
        item::{ItemFilter, ItemRow, PutItem, PutOutcome},
        value::Timestamp,
    },
    fields::has_fields,
};

/// The namespace and the key of an item.
type Place = (Vec<String>, String);

/// The stored items, by namespace and key.
#[derive(Debug, Default)]
pub(super) struct Items {
    rows: BTreeMap<Place, ItemRow>,
    expiries: BTreeSet<(Timestamp, Place)>,
}

impl Items {
    pub(super) fn put(&mut self, put: &PutItem, now: Timestamp) -> PutOutcome {
        self.remove_expired(now);
        let place = (put.namespace.clone(), put.key.clone());
        let former = self.rows.get(&place);
        let version = former.map_or(0, |row| row.version);
        if put.expected_version.is_some_and(|expected| expected != version) {
            return PutOutcome::OtherVersion(version);
        }
        let mut row = ItemRow::new(put.namespace.clone(), put.key.clone(), put.value.clone(), now);
        row.version = version + 1;
        row.created_at = former.map_or(now, |former| former.created_at);
        row.expires_at = put.time_to_live.map(|time| now.after(time));
        self.delete(&place);
        self.expiries.extend(row.expires_at.map(|time| (time, place.clone())));
        self.rows.insert(place, row);
        PutOutcome::Written(version + 1)
    }

    pub(super) fn get(&self, namespace: &[String], key: &str, now: Timestamp) -> Option<ItemRow> {
        self.rows.get(&(namespace.to_vec(), key.to_owned())).filter(|row| is_there(row, now)).cloned()
    }

    /// Deletes an item that has not expired. Returns whether there was one.
    pub(super) fn delete_present(&mut self, namespace: &[String], key: &str, now: Timestamp) -> bool {
        self.remove_expired(now);
        self.delete(&(namespace.to_vec(), key.to_owned()))
    }

    pub(super) fn list(&self, filter: &ItemFilter, now: Timestamp) -> Vec<ItemRow> {
        let mut selected: Vec<&ItemRow> = self
            .with_prefix(&filter.namespace_prefix)
            .filter(|row| is_there(row, now))
            .filter(|row| match row.value.as_object() {
                Some(object) => has_fields(object, &filter.fields),
                None => filter.fields.is_empty(),
            })
            .collect();
        selected.sort_by_key(|row| Reverse(row.updated_at));
        selected.into_iter().skip(filter.offset).take(filter.limit.unwrap_or(usize::MAX)).cloned().collect()
    }

    pub(super) fn namespaces(&self, prefix: &[String], now: Timestamp) -> Vec<Vec<String>> {
        let present = self.with_prefix(prefix).filter(|row| is_there(row, now));
        let names: BTreeSet<&Vec<String>> = present.map(|row| &row.namespace).collect();
        names.into_iter().cloned().collect()
    }

    fn with_prefix(&self, prefix: &[String]) -> impl Iterator<Item = &ItemRow> {
        let from = (prefix.to_vec(), String::new());
        self.rows.range(from..).map(|(_, row)| row).take_while(move |row| row.namespace.starts_with(prefix))
    }

    fn remove_expired(&mut self, now: Timestamp) {
        while let Some((_, place)) = self.expiries.first().filter(|(time, _)| *time <= now).cloned() {
            self.delete(&place);
        }
    }

    fn delete(&mut self, place: &Place) -> bool {
        let Some(row) = self.rows.remove(place) else { return false };
        if let Some(time) = row.expires_at {
            self.expiries.remove(&(time, place.clone()));
        }
        true
    }
}

fn is_there(row: &ItemRow, now: Timestamp) -> bool {
    row.expires_at.is_none_or(|time| now < time)
}
