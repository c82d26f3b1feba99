//! Sessions that the test's own coordinator convenes.

use casemate_softhsm_tests::TestLab;
use casemate_softhsm_tests::ethereum::{Transfer, address};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_two_of_three_sign_a_transaction_of_the_keys_address() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    for (nonce, signers) in [(0, [0, 1]), (1, [0, 2]), (2, [1, 2])] {
        let transfer = Transfer::allowed(nonce);
        let proposal = coordinator.convener.sign(&key, &signers, &transfer);
        let ends = coordinator.run_honestly(&proposal).await;
        let signature = ends[0].signature();
        assert_eq!(signature, ends[1].signature());
        assert!(signature.verifies(&key.public_key(), &transfer.hash()));
        assert_eq!(transfer.sender(&signature), address(&key.public_key()));
        for view in coordinator.views(&proposal).await {
            assert_eq!(view.signature, Some(signature));
        }
    }
}
