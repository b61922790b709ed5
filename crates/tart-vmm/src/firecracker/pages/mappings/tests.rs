use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const MEMORY: u64 = 256 << 20;

fn read(message: &Value) -> Result<Mappings, String> {
    Mappings::read(message.to_string().as_bytes(), MEMORY).map_err(|unusable| match unusable {
        Unusable::Incomplete => "incomplete".to_owned(),
        Unusable::Wrong(problem) => problem,
    })
}

fn mapping(start: u64, size: u64, offset: u64, page_size: u64) -> Value {
    json!({ "base_host_virt_addr": start, "size": size, "offset": offset, "page_size": page_size })
}

#[test]
fn a_page_is_found_by_any_of_its_addresses() {
    let low = 0x7000_0000_0000;
    let high = 0x7100_0000_0000;
    let mappings =
        read(&json!([mapping(high, 128 << 20, 128 << 20, SMALL), mapping(low, 128 << 20, 0, SMALL)]))
            .unwrap();
    let page = |address| mappings.page(address);
    assert_eq!(page(low + 5000), Some(Page { address: low + 4096, size: SMALL, offset: Some(4096) }));
    assert_eq!(page(high), Some(Page { address: high, size: SMALL, offset: Some(128 << 20) }));
    assert_eq!(page(low + (128 << 20) - 1).unwrap().offset, Some((128 << 20) - 4096));
    for other in [0, low - 1, low + (128 << 20), high - 1, high + (128 << 20), u64::MAX] {
        assert_eq!(page(other), None, "{other:x}");
    }
}

#[test]
fn huge_pages_are_served_whole_and_given_back_whole() {
    let start = 0x7000_0000_0000;
    let mut mappings = read(&json!([mapping(start, MEMORY, 0, HUGE)])).unwrap();
    let at = |address| Page { address: start + address, size: HUGE, offset: Some(address) };
    assert_eq!(mappings.page(start + HUGE - 1), Some(at(0)));
    assert_eq!(mappings.page(start + 3 * HUGE + 4096), Some(at(3 * HUGE)));
    mappings.remove(start + 1, start + 3 * HUGE - 1);
    let offsets = [0, 1, 2].map(|index| mappings.page(start + index * HUGE).unwrap().offset);
    assert_eq!(offsets, [Some(0), None, Some(2 * HUGE)], "of two pages a part is kept");
}

#[test]
fn what_is_given_back_is_zeros_whatever_the_addresses() {
    let start = 0x7000_0000_0000;
    let mut mappings = read(&json!([mapping(start, MEMORY, 0, SMALL)])).unwrap();
    mappings.remove(start + 8192, start + 3 * 4096);
    mappings.remove(start + MEMORY - 4096, u64::MAX);
    mappings.remove(u64::MAX, 0);
    let zeros = |index: u64| mappings.page(start + index * 4096).unwrap().offset.is_none();
    let last = MEMORY / 4096 - 1;
    assert_eq!([0, 1, 2, 3, last - 1, last].map(zeros), [false, false, true, false, false, true]);
}

#[test]
fn the_old_name_of_the_page_size_is_known_and_new_fields_do_not_matter() {
    let old = json!([{ "base_host_virt_addr": 4096, "size": MEMORY, "offset": 0, "page_size_kib": 4096, "colour": 1 }]);
    assert!(read(&old).is_ok());
    let message = json!([mapping(4096, MEMORY, 0, SMALL)]).to_string();
    for len in 0..message.len() {
        let part = message.get(..len).unwrap();
        assert_eq!(Mappings::read(part.as_bytes(), MEMORY), Err(Unusable::Incomplete), "{part}");
    }
}

#[test]
fn a_message_that_does_not_fit_is_refused_with_a_reason() {
    let refused = |mappings: Value| read(&mappings).unwrap_err();
    insta::assert_snapshot!(refused(json!([])), @"it tells of 0 mappings, not of 1 to 64");
    insta::assert_snapshot!(refused(json!([mapping(4096, MEMORY, 0, 8192)])), @"its mapping 0 has pages of 8192 bytes, which are neither 4096 nor 2097152");
    insta::assert_snapshot!(refused(json!([mapping(4096, MEMORY, 0, HUGE)])), @"its mapping 0 is not made of whole pages of 2097152 bytes");
    insta::assert_snapshot!(refused(json!([mapping(u64::MAX - 4095, MEMORY, 0, SMALL)])), @"its mapping 0 is at an address that no process has");
    insta::assert_snapshot!(refused(json!([mapping(4096, MEMORY, 4096, SMALL)])), @"its mapping 0 is not within the 268435456 bytes of the memory");
    insta::assert_snapshot!(refused(json!([mapping(4096, 4096, 0, SMALL)])), @"its mappings have 4096 bytes, and the memory has 268435456");
    let half = MEMORY / 2;
    let far = 1 << 40;
    insta::assert_snapshot!(refused(json!([mapping(4096, half, 0, SMALL), mapping(far, half, 0, SMALL)])), @"its mappings have byte 0 of the memory twice");
    insta::assert_snapshot!(refused(json!([mapping(4096, half, half, SMALL)])), @"its mappings have byte 0 of the memory not at all");
    insta::assert_snapshot!(refused(json!([mapping(4096, half, 0, SMALL), mapping(8192, half, half, SMALL)])), @"its mappings overlap");
    insta::assert_snapshot!(refused(json!({})), @"its message is not what is expected: invalid type: map, expected a sequence at line 1 column 0");
}

/// Numbers near those that matter.
fn number() -> impl Strategy<Value = u64> {
    let near = [0, SMALL, HUGE, MEMORY / 2, MEMORY, MAX_ADDRESS, u64::MAX];
    prop_oneof![
        4 => (prop::sample::select(near.to_vec()), -2_i64..3).prop_map(|(near, pages)| near.wrapping_add_signed(pages * 4096)),
        1 => any::<u64>(),
    ]
}

proptest! {
    #[test]
    fn what_is_accepted_is_all_of_the_memory_once(
        parts in prop::collection::vec((number(), number(), number(), prop::sample::select(vec![SMALL, HUGE])), 0..4),
        addresses in prop::collection::vec(number(), 0..8),
    ) {
        let message: Vec<_> = parts.iter().map(|(start, size, offset, page)| mapping(*start, *size, *offset, *page)).collect();
        let Ok(mut mappings) = read(&json!(message)) else { return Ok(()) };
        prop_assert_eq!(mappings.0.iter().map(|mapping| mapping.size).sum::<u64>(), MEMORY);
        check_pages(&mut mappings, &addresses)?;
    }

    #[test]
    fn pages_are_within_the_memory(
        pages in 1..MEMORY / HUGE,
        bases in (1..1_u64 << 20, 1..1_u64 << 20),
        sizes in (any::<bool>(), any::<bool>()),
        addresses in prop::collection::vec((any::<bool>(), 0..MEMORY), 0..8),
    ) {
        let first = pages * HUGE;
        let (low, high) = (bases.0 * HUGE, (1 << 50) + bases.1 * HUGE);
        let size = |huge| if huge { HUGE } else { SMALL };
        let parts = [mapping(high, first, 0, size(sizes.0)), mapping(low, MEMORY - first, first, size(sizes.1))];
        let mut mappings = read(&json!(parts)).unwrap();
        let addresses: Vec<_> = addresses.iter().map(|(up, at)| if *up { high } else { low } + at).collect();
        check_pages(&mut mappings, &addresses)?;
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _any = Mappings::read(&bytes, MEMORY);
    }
}

/// Every page is within the memory file and aligned; what is given back and nothing else is zeros.
fn check_pages(mappings: &mut Mappings, addresses: &[u64]) -> Result<(), TestCaseError> {
    for address in addresses {
        let Some(page) = mappings.page(*address) else { continue };
        prop_assert!(page.address <= *address && *address - page.address < page.size);
        prop_assert!(page.address.is_multiple_of(page.size));
        if let Some(offset) = page.offset {
            prop_assert!(offset.is_multiple_of(page.size) && offset + page.size <= MEMORY);
        }
        mappings.remove(page.address, page.address + page.size);
        prop_assert_eq!(mappings.page(*address).unwrap().offset, None);
    }
    Ok(())
}
