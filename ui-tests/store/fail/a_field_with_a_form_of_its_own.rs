use agentflow::State;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Address {
    city: String,
}

#[derive(Clone, Serialize, Deserialize, State)]
struct Mail {
    #[serde(rename = "to", with = "as_city")]
    address: Address,
}

mod as_city {
    use super::Address;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
        address.city.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer).map(|city| Address { city })
    }
}

fn main() {}
