//! Child keys and addresses against published vectors: BIP-32, SLIP-10, BIP-84, BIP-173, EIP-55.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use bitcoin::base58;
use casemate_policy::address::Addresses;
use casemate_policy::intent::Signer;
use casemate_wire::PublicKey;

/// Chain code and public key of an extended public key (BIP-32's serialization; SLIP-132's differs in its first bytes).
fn extended(text: &str) -> ([u8; 32], PublicKey) {
    let bytes = base58::decode_check(text).unwrap();
    assert_eq!(bytes.len(), 78);
    (bytes[13..45].try_into().unwrap(), PublicKey::from_bytes(&bytes[45..]).unwrap())
}

fn child(parent: &str, path: &[u32]) -> PublicKey {
    let (chain_code, key) = extended(parent);
    let signer = Signer::derive(&key, chain_code, path).unwrap();
    PublicKey::from_bytes(&signer.public_key()).unwrap()
}

/// Every non-hardened step of BIP-32's test vectors; 3 and 4 have none.
#[test]
fn non_hardened_steps_of_bip_32s_vectors_lead_to_its_keys() {
    let steps: [(&str, &str, &[u32], &str); 5] = [
        (
            "1: m/0H to m/0H/1",
            "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw",
            &[1],
            "xpub6ASuArnXKPbfEwhqN6e3mwBcDTgzisQN1wXN9BJcM47sSikHjJf3UFHKkNAWbWMiGj7Wf5uMash7SyYq527Hqck2AxYysAA7xmALppuCkwQ",
        ),
        (
            "1: m/0H/1/2H to m/0H/1/2H/2/1000000000",
            "xpub6D4BDPcP2GT577Vvch3R8wDkScZWzQzMMUm3PWbmWvVJrZwQY4VUNgqFJPMM3No2dFDFGTsxxpG5uJh7n7epu4trkrX7x7DogT5Uv6fcLW5",
            &[2, 1_000_000_000],
            "xpub6H1LXWLaKsWFhvm6RVpEL9P4KfRZSW7abD2ttkWP3SSQvnyA8FSVqNTEcYFgJS2UaFcxupHiYkro49S8yGasTvXEYBVPamhGW6cFJodrTHy",
        ),
        (
            "2: m to m/0",
            "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB",
            &[0],
            "xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH",
        ),
        (
            "2: m/0/2147483647H to …/1",
            "xpub6ASAVgeehLbnwdqV6UKMHVzgqAG8Gr6riv3Fxxpj8ksbH9ebxaEyBLZ85ySDhKiLDBrQSARLq1uNRts8RuJiHjaDMBU4Zn9h8LZNnBC5y4a",
            &[1],
            "xpub6DF8uhdarytz3FWdA8TvFSvvAh8dP3283MY7p2V4SeE2wyWmG5mg5EwVvmdMVCQcoNJxGoWaU9DCWh89LojfZ537wTfunKau47EL2dhHKon",
        ),
        (
            "2: …/1/2147483646H to …/2",
            "xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL",
            &[2],
            "xpub6FnCn6nSzZAw5Tw7cgR9bi15UV96gLZhjDstkXXxvCLsUXBGXPdSnLFbdpq8p9HmGsApME5hQTZ3emM2rnY5agb9rXpVGyy3bdW6EEgAtqt",
        ),
    ];
    for (case, parent, path, expected) in steps {
        assert_eq!(child(parent, path), extended(expected).1, "{case}");
    }
}

/// SLIP-10's vectors for secp256k1 give chain codes and keys in hex.
#[test]
fn non_hardened_steps_of_slip_10s_vectors_lead_to_its_keys() {
    let steps = [
        (
            "47fdacbd0f1097043b78c63c20c34ef4ed9a111d980047ad16282c7ae6236141",
            "035a784662a4a20a65bf6aab9ae98a6c068a81c52e4b032c0fb5400c706cfccc56",
            1,
            "03501e454bf00751f24b1b489aa925215d66af2234e3891c3b21a52bedb3cd711c",
        ),
        (
            "60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689",
            "03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7",
            0,
            "02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea",
        ),
    ];
    for (chain_code, parent, index, expected) in steps {
        let chain_code = hex::decode(chain_code).unwrap().try_into().unwrap();
        let signer = Signer::derive(&parent.parse().unwrap(), chain_code, &[index]).unwrap();
        assert_eq!(hex::encode(signer.public_key()), expected);
    }
}

/// BIP-84's account, which it writes as a zpub, with its receiving and change addresses.
#[test]
fn children_of_bip_84s_account_have_its_addresses() {
    let account = "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs";
    for (path, address) in [
        ([0, 0], "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"),
        ([0, 1], "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"),
        ([1, 0], "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el"),
    ] {
        assert_eq!(Addresses::of(&child(account, &path)).unwrap().bitcoin, address, "{path:?}");
    }
}

/// BIP-173's example key is the generator, whose Ethereum address is as well known.
#[test]
fn the_generator_has_the_addresses_that_everybody_knows() {
    let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
    let addresses = Addresses::of(&generator).unwrap();
    assert_eq!(addresses.bitcoin, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4");
    assert_eq!(addresses.bitcoin_testnet, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx");
    assert_eq!(addresses.ethereum, "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
}
