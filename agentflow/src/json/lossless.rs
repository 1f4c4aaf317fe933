//! [`Lossless`]: a serializer that refuses what JSON cannot express, and knows where it is.

use std::cell::RefCell;

use serde::{
    Serialize, Serializer,
    ser::{
        Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

use super::error::EncodeErrorKind;

/// The number of arrays and objects inside each other that `serde_json` reads.
const MAX_DEPTH: usize = 127;

/// Writes the value as JSON. After an error, `fault` has its kind and the path.
pub(super) fn written<T: Serialize>(value: &T, fault: &Fault) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(128);
    let root = Place { outer: None, segment: Segment::Root, depth: 0, fault };
    Inside { value, place: &root }.serialize(&mut serde_json::Serializer::new(&mut json))?;
    Ok(json)
}

/// The first error, with its path.
#[derive(Default)]
pub(super) struct Fault(RefCell<(Option<String>, Option<EncodeErrorKind>)>);

impl Fault {
    /// Returns the path and the kind of the error with which the serializer ended.
    pub(super) fn into_parts(self, error: &serde_json::Error) -> (String, EncodeErrorKind) {
        let (path, kind) = self.0.into_inner();
        (path.unwrap_or_default(), kind.unwrap_or_else(|| EncodeErrorKind::Custom(error.to_string().into())))
    }
}

/// The place of a value, and those of the values around it.
struct Place<'a> {
    outer: Option<&'a Place<'a>>,
    segment: Segment<'a>,
    /// The number of arrays and objects around the value.
    depth: usize,
    fault: &'a Fault,
}

enum Segment<'a> {
    Root,
    Field(&'static str),
    Index(usize),
    /// The key of a map. It becomes text only after an error.
    Key(&'a dyn Fn() -> String),
}

impl Place<'_> {
    /// Ends with an error of this kind.
    fn refuse<T, E: Error>(&self, kind: EncodeErrorKind) -> Result<T, E> {
        let error = E::custom(&kind);
        self.fault.0.borrow_mut().1.get_or_insert(kind);
        Err(error)
    }

    /// Enters arrays or objects, `levels` of them.
    fn enter<E: Error>(&self, levels: usize) -> Result<usize, E> {
        let depth = self.depth + levels;
        if depth > MAX_DEPTH { self.refuse(EncodeErrorKind::TooDeep) } else { Ok(depth) }
    }

    fn path(&self) -> String {
        let outer = self.outer.map(Self::path).unwrap_or_default();
        let name = match &self.segment {
            Segment::Root => return outer,
            Segment::Index(index) => return format!("{outer}[{index}]"),
            Segment::Field(name) => (*name).to_owned(),
            Segment::Key(text) => text(),
        };
        if outer.is_empty() { name } else { format!("{outer}.{name}") }
    }
}

/// A value at its place.
struct Inside<'a, T: ?Sized> {
    value: &'a T,
    place: &'a Place<'a>,
}

impl<T: Serialize + ?Sized> Serialize for Inside<'_, T> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        let place = self.place;
        self.value.serialize(Lossless { inner, place }).inspect_err(|_| {
            // The innermost value is the first one that ends.
            place.fault.0.borrow_mut().0.get_or_insert_with(|| place.path());
        })
    }
}

/// The serializer of one value.
struct Lossless<'a, S> {
    inner: S,
    place: &'a Place<'a>,
}

/// The serializer of an array or an object.
struct Compound<'a, C> {
    inner: C,
    place: &'a Place<'a>,
    /// The name of the variant whose fields these are.
    variant: Option<&'static str>,
    depth: usize,
    index: usize,
}

impl<'a, S: Serializer> Lossless<'a, S> {
    /// Begins an array or an object.
    fn begin<C>(
        self,
        variant: Option<&'static str>,
        begin: impl FnOnce(S) -> Result<C, S::Error>,
    ) -> Result<Compound<'a, C>, S::Error> {
        let place = self.place;
        let depth = place.enter(if variant.is_some() { 2 } else { 1 })?;
        Ok(Compound { inner: begin(self.inner)?, place, variant, depth, index: 0 })
    }
}

impl<C> Compound<'_, C> {
    /// Hands a part of the array or the object on, at its place.
    fn part<T: Serialize + ?Sized, R>(
        &mut self,
        segment: Segment<'_>,
        value: &T,
        write: impl FnOnce(&mut C, &Inside<'_, T>) -> R,
    ) -> R {
        let Self { place, depth, .. } = *self;
        let at = |outer, segment| Place { outer: Some(outer), segment, depth, fault: place.fault };
        let variant = self.variant.map(|name| at(place, Segment::Field(name)));
        let outer = variant.as_ref().unwrap_or(place);
        write(&mut self.inner, &Inside { value, place: &at(outer, segment) })
    }

    /// Hands the next item on.
    fn item<T: Serialize + ?Sized, R>(&mut self, value: &T, write: impl FnOnce(&mut C, &Inside<'_, T>) -> R) -> R {
        let index = self.index;
        self.index += 1;
        self.part(Segment::Index(index), value, write)
    }
}

macro_rules! scalars {
    ($($method:ident: $Value:ty,)*) => {$(
        fn $method(self, value: $Value) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Lossless<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Compound<'a, S::SerializeSeq>;
    type SerializeTuple = Compound<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Compound<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Compound<'a, S::SerializeTupleVariant>;
    type SerializeMap = Compound<'a, S::SerializeMap>;
    type SerializeStruct = Compound<'a, S::SerializeStruct>;
    type SerializeStructVariant = Compound<'a, S::SerializeStructVariant>;

    scalars! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_char: char,
        serialize_str: &str,
        serialize_unit_struct: &'static str,
    }

    fn serialize_i128(self, value: i128) -> Result<S::Ok, S::Error> {
        match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => self.inner.serialize_i64(value),
            (_, Ok(value)) => self.inner.serialize_u64(value),
            _ => self.place.refuse(EncodeErrorKind::TooLarge),
        }
    }

    fn serialize_u128(self, value: u128) -> Result<S::Ok, S::Error> {
        match u64::try_from(value) {
            Ok(value) => self.inner.serialize_u64(value),
            Err(_) => self.place.refuse(EncodeErrorKind::TooLarge),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        if value.is_finite() { self.inner.serialize_f32(value) } else { self.place.refuse(EncodeErrorKind::NotFinite) }
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        if value.is_finite() { self.inner.serialize_f64(value) } else { self.place.refuse(EncodeErrorKind::NotFinite) }
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        self.place.enter(1)?;
        self.inner.serialize_bytes(value)
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Inside { value, place: self.place })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &Inside { value, place: self.place })
    }

    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let Place { fault, .. } = *self.place;
        let depth = self.place.enter(1)?;
        let place = Place { outer: Some(self.place), segment: Segment::Field(variant), depth, fault };
        self.inner.serialize_newtype_variant(name, index, variant, &Inside { value, place: &place })
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.begin(None, |inner| inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.begin(None, |inner| inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.begin(None, |inner| inner.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.begin(Some(variant), |inner| inner.serialize_tuple_variant(name, index, variant, len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.begin(None, |inner| inner.serialize_map(len))
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.begin(None, |inner| inner.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.begin(Some(variant), |inner| inner.serialize_struct_variant(name, index, variant, len))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! arrays {
    ($($Trait:ident::$method:ident,)*) => {$(
        impl<C: $Trait> $Trait for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.item(value, |inner, value| inner.$method(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}
arrays! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! objects {
    ($($Trait:ident,)*) => {$(
        impl<C: $Trait> $Trait for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), C::Error> {
                self.part(Segment::Field(key), value, |inner, value| inner.serialize_field(key, value))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}
objects! { SerializeStruct, SerializeStructVariant, }

impl<C: SerializeMap> SerializeMap for Compound<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        // The key was written before, and is not kept.
        self.part(Segment::Key(&|| "?".to_owned()), value, |inner, value| inner.serialize_value(value))
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), C::Error> {
        self.inner.serialize_key(key)?;
        let text = || serde_json::to_string(key).unwrap_or_default().trim_matches('"').to_owned();
        self.part(Segment::Key(&text), value, |inner, value| inner.serialize_value(value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}
