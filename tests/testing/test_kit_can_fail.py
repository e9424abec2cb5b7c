"""The kit finds what is wrong: each broken plugin fails the tests that are about its fault; sound ones pass all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Broken backend -> tests that must fail: only these are run, to save time. Without any, it must pass the whole kit.
BACKENDS = {
    "Sound": set(),
    "TurnsTheOtherWay": {
        "rotation_by_k_moves_slot_i_plus_k_to_slot_i",
        "rotation_is_cyclic_over_all_slots",
        "rotate_many",
        "a_saved_key_holder_decrypts_after_loading",
        "evaluation_keys_are_named_and_can_be_sent_again_alone",
        "two_key_holders_in_one_process_do_not_mix",
        "a_ciphertext_of_three_parts_is_refused_or_read_right",
        "bytes_are_understood_by_a_server_in_another_process",
        "a_saved_key_holder_goes_on_in_another_process",
        "noise_is_that_of_the_model",
        "a_small_unet_gives_its_twins_result",
        "steps_from_one_message_give_the_twins_result",
    },
    "TurnsHalves": {  # as BFV's rows: cyclic over half of the slots
        "rotation_by_k_moves_slot_i_plus_k_to_slot_i",
        "rotation_is_cyclic_over_all_slots",
        "rotate_many",
        "linear_transform_is_the_dense_product",
        "a_saved_key_holder_decrypts_after_loading",
        "evaluation_keys_are_named_and_can_be_sent_again_alone",
        "two_key_holders_in_one_process_do_not_mix",
        "a_ciphertext_of_three_parts_is_refused_or_read_right",
        "bytes_are_understood_by_a_server_in_another_process",
        "a_saved_key_holder_goes_on_in_another_process",
        "noise_is_that_of_the_model",
        "a_small_unet_gives_its_twins_result",
    },
    "KeepsTheScale": {
        "rescale_divides_the_scale_by_the_primes_dropped",
        "relinearisation_is_explicit_where_it_is_wanted",
        "noise_is_that_of_the_model",
        "a_small_unet_gives_its_twins_result",
        "a_program_costs_what_was_counted",
    },
    "TakesForeignKeys": {
        "keys_and_ciphertexts_of_another_holder_are_refused",
        "announced_levels_and_scales_are_checked",
    },
    "OneKeyForAll": {"two_key_holders_in_one_process_do_not_mix"},
    "ChangesItsOperand": {"additions", "operations_leave_their_operands_alone"},
    "TakesNan": {"values_that_cannot_be_encoded"},
    "TakesOtherLevels": {"levels_that_differ_are_refused"},
    "TakesOtherScales": {"scales_that_differ_are_refused"},
    "NeedsNoKeys": {
        "a_missing_evaluation_key_is_named",
        "evaluation_keys_are_named_and_can_be_sent_again_alone",
        "conjugation",
    },
    "TakesAnyBytes": {
        "payloads_that_lie_behind_a_correct_digest",
        "announced_levels_and_scales_are_checked",
    },
    "TakesAnyKey": {"a_key_whose_content_is_another_is_refused", "damaged_keys_are_refused"},
    "LengthsTell": {"lengths_depend_on_the_level_alone"},
    "PublicSecret": {"a_saved_key_holder_decrypts_after_loading"},
    "FixedKeyId": {
        "key_ids_are_random",
        "keys_and_ciphertexts_of_another_holder_are_refused",
    },
    "Noisy": {"noise_is_that_of_the_model"},
    "Coarse": {"noise_is_that_of_the_model", "a_small_unet_gives_its_twins_result"},
    "Decrypts": {"nothing_reachable_from_an_evaluator_can_decrypt"},
    "KeepsTheHolder": {"nothing_reachable_from_an_evaluator_can_decrypt"},
    "ImportsTheHolder": {"a_server_imports_no_key_holder", "modules_stay_apart_in_this_process_too"},
    "ClaimsToEncrypt": {
        "only_the_right_secret_reads_a_ciphertext_unless_simulated",
    },
    "ClaimsSeeds": {"seeded_bytes"},
    "DropsPlaintextsWrongly": {"plaintext_levels"},
    "ClaimsFineReals": {"fine_reals"},
    "ClaimsHoisting": {"hoisted_rotations"},
    "ClaimsBootstrapping": {"bootstrapping"},
    "Bootstraps": set(),
    "BootstrapsWrongly": {"bootstrapping", "bootstrapped_steps_give_the_twins_result"},
    "BootstrapsTooLow": {"bootstrapping"},
    "HidesConjugation": set(),
    "ClaimsConjugation": {"conjugation", "squares_of_real_and_imaginary_parts"},
    "ClaimsAlternation": {"alternating_imaginary", "squares_of_real_and_imaginary_parts"},
    "ClaimsRings": {"ring_dimensions"},
    "RefusesSilently": {"ring_dimensions"},
    "OtherPrimes": {"resolving_gives_the_same_primes_every_time"},
    "Miscounts": {
        "every_operation_is_counted",
        "a_program_costs_what_was_counted",
    },
    "MixesThreads": {"threads"},
    "ClaimsNoThreads": {"threads"},
    "RefusesForks": set(),
    "ClaimsForks": {"fork"},
    "DiesOfForks": {"fork"},
    "SilentAboutForks": {"fork"},
    "TurnsByAnyKey": {"a_key_serves_the_levels_that_the_manifest_names"},
    "IgnoresShown": {
        "what_is_shown_is_added_to_an_input",
        "updates_take_as_many_ciphertexts_as_there_are",
    },
    "ShowsBeforeTheResult": {"updates_take_as_many_ciphertexts_as_there_are"},
    "WantsAllCiphertexts": {"updates_take_as_many_ciphertexts_as_there_are"},
    "LosesImaginaryParts": {"updates_take_as_many_ciphertexts_as_there_are"},
    "Leaks": {"two_hundred_operations_leak_no_ciphertext"},
}


STRATEGIES = {
    "SaysNothing": {"it_says_how_its_entries_are_sent"},
    "SaysOne": {"it_says_how_its_entries_are_sent"},
    "OnlyEvenSides": {"a_selection_is_a_mask_of_the_latents_shape"},
    "OnlySquares": {"a_selection_is_a_mask_of_the_latents_shape"},
    "ReusesItsMask": {"a_selection_outlives_the_next"},
    "WrongShape": {"a_selection_is_a_mask_of_the_latents_shape"},
    "Integers": {"a_selection_is_a_mask_of_the_latents_shape"},
    "Random": {"the_same_latent_gives_the_same_selection"},
    "Remembers": {"the_same_latent_gives_the_same_selection"},
    "Sorts": {"the_latent_is_left_as_it_was"},
    "ReadsMemory": {"a_latents_place_in_memory_does_not_matter"},
}


MODELS = {
    "OtherWeights": {"the_graph_is_the_twin_at_every_step"},
    "ChangesLatents": {"the_graph_is_the_twin_at_every_step"},
    "Transposes": {"latents_is_the_inverse_of_inputs", "the_graph_is_the_twin_at_every_step"},
    "LosesALabel": {"every_label_is_an_input_of_its_own"},
    "AnyLabel": {"labels_out_of_range_are_refused"},
    "OneStepMore": {"the_graph_fits_the_schedule_and_the_inputs", "a_schedule_without_steps_is_refused"},
    "AnyScheduler": {"schedulers_that_are_not_linear_are_refused_by_name"},
    "Uncalibrated": {"the_graph_fits_the_schedule_and_the_inputs", "it_lowers_at_128_bits_within_its_depth"},
}


KITS = {
    "BackendConformance": ("backend", "broken_backends", BACKENDS),
    "StrategyConformance": ("strategy", "broken_strategies", STRATEGIES),
    "ModelConformance": ("model", "broken_models", MODELS),
}
CASES = [(kit, name) for kit, (_, _, broken) in KITS.items() for name in broken]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """Every broken plugin under the kit, in one run of pytest: class -> (outcome, test)."""
    folder = tmp_path_factory.mktemp("broken")
    lines, chosen = ["import pytest"], []
    for kit, (fixture, module, broken) in KITS.items():
        lines.append(f"from hefw.testing import {kit}")
        for name, tests in broken.items():
            lines.append(f"from {module} import {name}")
            lines.append(f"class Test{name}({kit}):\n    @pytest.fixture\n    def {fixture}(self): return {name}()")
            chosen += [f"test_broken.py::Test{name}::test_{test}" for test in tests] or [f"test_broken.py::Test{name}"]
    (folder / "test_broken.py").write_text("\n".join(lines))
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "--tb=no", "--no-header", "-p", "no:cacheprovider", *chosen],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, set[tuple[str, str]]] = {}
    for line in done.stdout.splitlines():
        if match := re.match(r"([A-Z]+) (?:\[\d+\] )?test_broken\.py::Test(\w+)::test_(\w+)", line):
            found.setdefault(match[2], set()).add((match[1], match[3]))
    return found


@pytest.mark.parametrize(("kit", "name"), CASES, ids=[f"{kit}-{name}" for kit, name in CASES])
def test_what_is_broken_is_found(outcomes, kit, name) -> None:
    wanted = KITS[kit][2][name]
    assert {test for outcome, test in outcomes[name] if outcome == "FAILED"} == wanted
    assert not {test for outcome, test in outcomes[name] if outcome not in ("FAILED", "PASSED")}
