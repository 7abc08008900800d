from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from prunecert.bench.running.training import is_done, plan
from prunecert.bench.schema.cell import Cell, parse_eps, show_eps
from prunecert.bench.schema.suite import available_suites, load_suite
from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO
from prunecert.models.recipe import Recipe
from tests.bench.conftest import SUITE


def write(folder: Path, text: str) -> str:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return str(path)


def test_cells_are_the_product_with_one_dense_control(tmp_path: Path) -> None:
    text = SUITE.replace("pruners: [lwm]", "pruners: [lwm, hydra]").replace("eps: [2/255]", "eps: [2/255, 8/255]")
    suite = load_suite(write(tmp_path, text))
    names = [cell.name for cell, _ in suite.cells]
    assert len(names) == len(set(names)) == 2 * (1 + 2 * 2)
    assert names[:5] == [
        "cnn-small_ibp_eps2_dense_x1_s0",
        "cnn-small_ibp_eps2_lwm_x10_s0",
        "cnn-small_ibp_eps2_hydra_x10_s0",
        "cnn-small_ibp_eps2_lwm_x20_s0",
        "cnn-small_ibp_eps2_hydra_x20_s0",
    ]
    assert suite.cells[0][0].eps == Fraction(2, 255)


def test_what_changes_a_network_without_removing_a_weight_has_a_cell_beside_the_dense_control(tmp_path: Path) -> None:
    text = SUITE.replace("pruners: [lwm]", "pruners: [lwm, grafting]").replace("[1, 10, 20]", "[1, 10]")
    cells = [cell for cell, _ in load_suite(write(tmp_path, text)).cells]
    assert [(cell.pruner, cell.compression) for cell in cells[:4]] == [
        ("dense", 1),
        ("grafting", 1),
        ("lwm", 10),
        ("grafting", 10),
    ]
    assert cells[1].name == "cnn-small_ibp_eps2_grafting_x1_s0"


def test_one_networks_checkpoints_are_verified_at_several_radii(tmp_path: Path) -> None:
    sweep = SUITE.replace("eps: [2/255]", "eps: [1/255, 2/255, 4/255]\n    trained_eps: 2/255")
    path = write(tmp_path, sweep.replace("[1, 10, 20]", "[1, 10]"))
    suite = load_suite(path)
    cells = [cell for cell, _ in suite.cells]
    assert [cell.name for cell in cells] == [
        "cnn-small_ibp_eps2-at1_dense_x1_s0",
        "cnn-small_ibp_eps2-at1_lwm_x10_s0",
        "cnn-small_ibp_eps2_dense_x1_s0",
        "cnn-small_ibp_eps2_lwm_x10_s0",
        "cnn-small_ibp_eps2-at4_dense_x1_s0",
        "cnn-small_ibp_eps2-at4_lwm_x10_s0",
    ]
    assert [cell.eps * 255 for cell in cells[::2]] == [1, 2, 4]
    assert {cell.as_trained.name for cell in cells} == {cells[2].name, cells[3].name}
    assert cells[2] == Cell("cnn-small", "ibp", Fraction(2, 255), "dense", 1.0, 0), "no other cell than without the key"
    assert "trained_eps" not in cells[2].to_json()
    assert cells[0].to_json()["trained_eps"] == "2/255"
    # Each is trained once, at its own radius.
    assert [job.name for job in plan(suite, None, path)] == [cells[2].name, cells[3].name]
    assert {job.eps_text for job in plan(suite, None, path)} == {"2/255"}


def test_profiles_and_blocks_override_in_turn(tmp_path: Path) -> None:
    block = "    verify: {images: 7, timeouts: {fake-bound: 9}}\n    profiles: {half: {images: 3}}\nverify:"
    path = write(tmp_path, SUITE.replace("verify:", block, 1))
    default, half = load_suite(path).cells[0][1], load_suite(path, "half").cells[0][1]
    assert (default.images, default.timeouts["fake-bound"], default.timeouts["fake-complete"]) == (7, 9, 5)
    assert half.images == 3
    plain = write(tmp_path, SUITE)
    assert load_suite(plain, "half").cells[0][1].images == 20
    assert load_suite(plain).digest() != load_suite(plain, "half").digest()
    assert load_suite(plain).digest() == load_suite(plain).digest()


def test_attack_only_says_why(tmp_path: Path) -> None:
    text = SUITE.replace("[fake-bound, fake-complete]", "[fake-bound, fake-liar]")
    text = text.replace("verify:", "    verify: attack-only\nverify:", 1)
    protocol = load_suite(write(tmp_path, text)).cells[0][1]
    assert protocol.cascade == ("fake-liar",)
    assert protocol.cross_check == ()
    assert "vacuous" in protocol.note
    assert protocol.only(("fake-bound", "fake-liar")).cascade == ("fake-liar",)


BALLS = """    eps: [1/10, 1/4]
    norm: l2
    trained_eps: 2/255
    verify: {cascade: [pgd, sparse-crown], timeouts: {sparse-crown: 5}}
"""


def test_networks_are_verified_over_l2_balls(tmp_path: Path) -> None:
    path = write(tmp_path, SUITE.replace("    eps: [2/255]\n", BALLS).replace("[1, 10, 20]", "[1, 10]"))
    suite = load_suite(path)
    cells = [cell for cell, _ in suite.cells]
    assert [cell.name for cell in cells] == [
        "cnn-small_ibp_eps2-l2at0.1_dense_x1_s0",
        "cnn-small_ibp_eps2-l2at0.1_lwm_x10_s0",
        "cnn-small_ibp_eps2-l2at0.25_dense_x1_s0",
        "cnn-small_ibp_eps2-l2at0.25_lwm_x10_s0",
    ]
    assert {cell.verification_norm for cell in cells} == {"l2"}
    assert {protocol.note for _, protocol in suite.cells} == {"verified over l2 balls: ε is their radius"}
    assert (cells[0].to_json()["norm"], cells[0].to_json()["trained_eps"]) == ("l2", "2/255")
    assert [cell.as_trained.name for cell in cells[:2]] == [
        "cnn-small_ibp_eps2_dense_x1_s0",
        "cnn-small_ibp_eps2_lwm_x10_s0",
    ]
    # A radius that is that of the training, too, is another question all the same.
    same = load_suite(write(tmp_path, SUITE.replace("    eps: [2/255]\n", BALLS.replace("1/10, 1/4", "2/255"))))
    assert same.cells[0][0].name == "cnn-small_ibp_eps2-l2at0.00784314_dense_x1_s0"
    # The usual norm may be said, and changes nothing.
    said = load_suite(write(tmp_path, SUITE.replace("eps: [2/255]", "eps: [2/255]\n    norm: linf")))
    assert said.digest() == load_suite(write(tmp_path, SUITE)).digest()


def test_radii_of_balls_may_be_plain_whole_numbers(tmp_path: Path) -> None:
    text = SUITE.replace("    eps: [2/255]\n", BALLS.replace("1/10, 1/4", "1/10, 1, 3/2, '0.2'"))
    suite = load_suite(write(tmp_path, text))
    shown = {cell.to_json()["eps"]: cell.family for cell, _ in suite.cells}
    assert list(shown) == ["1/10", "1", "3/2", "1/5"]
    assert shown["3/2"] == "cnn-small_ibp_eps2-l2at1.5"
    with pytest.raises(UserError, match=r"line 6, cells\[0\]\.eps\[1\]: Radius '1001' is refused; that of an l2 ball"):
        load_suite(write(tmp_path, text.replace("1/10, 1,", "1/10, 1001,")))
    # One that is trained for is one in the sup norm all the same.
    with pytest.raises(UserError, match=r"trained_eps: Radius '2' is refused; it must be above 0 and at most 1 "):
        load_suite(write(tmp_path, text.replace("trained_eps: 2/255", "trained_eps: 2")))


def test_networks_of_ones_own_are_not_verified_over_balls(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    own = "  - networks: [{onnx: net.onnx}]\n    eps: [2/255]\n"
    text = SUITE.replace(SUITE[SUITE.index("  - networks") : SUITE.index("verify:")], own)
    assert len(load_suite(write(tmp_path, text)).cells) == 1
    for line in ("norm: l2", "trained_eps: 2/255"):
        with pytest.raises(UserError, match=r"line 6, cells\[0\]\..*of one's own, which are verified over boxes"):
            load_suite(write(tmp_path, text.replace(own, f"{own}    {line}\n")))


def test_one_radius_is_not_asked_in_both_norms(tmp_path: Path) -> None:
    block = SUITE[SUITE.index("  - networks") : SUITE.index("verify:")]
    both = block + block.replace("    eps: [2/255]\n", BALLS.replace("1/10, 1/4", "2/255"))
    text = SUITE.replace(block, both)
    with pytest.raises(UserError, match="cnn-small by ibp has the radius 2/255 in both norms"):
        load_suite(write(tmp_path, text))
    other = block + block.replace("    eps: [2/255]\n", BALLS)
    assert len(load_suite(write(tmp_path, SUITE.replace(block, other))).cells) == 9


def test_one_radius_is_not_asked_of_networks_trained_for_two(tmp_path: Path) -> None:
    block = SUITE[SUITE.index("  - networks") : SUITE.index("verify:")]
    sweep = block.replace("eps: [2/255]", "eps: [1/255, 2/255]\n    trained_eps: 2/255")
    message = "cnn-small by ibp is verified at 1/255 as trained for 2/255 and for 1/255, and tables"
    with pytest.raises(UserError, match=message):
        load_suite(write(tmp_path, SUITE.replace(block, sweep + block.replace("[2/255]", "[1/255]"))))
    # Other radii beside it, and the same block again, are no matter.
    apart = sweep + block.replace("[2/255]", "[4/255]") + block
    assert {cell.trained_eps for cell, _ in load_suite(write(tmp_path, SUITE.replace(block, apart))).cells} == {
        None,
        Fraction(2, 255),
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("norm: l2", "norm: l1", r"line 7, cells\[0\]\.norm: Unknown norm 'l1'"),
        ("    trained_eps: 2/255\n", "", r"line 7, cells\[0\]\.norm: 'l2' is refused without 'trained_eps'"),
        (
            "[pgd, sparse-crown]",
            "[pgd, sparse-ibp]",
            r"line 7, .*'sparse-ibp' in the cascade, which takes boxes only; .*sparse-bab",
        ),
        (
            "verify: {",
            "verify: {pair: {verifiers: [sparse-crown]}, ",
            r"line 7, .*'l2' is refused together with 'verify\.pair'",
        ),
        ("norm: l2", "norm: l2\n    bits: [8, int8]", r"line 8, cells\[0\]\.bits: 'int8' is refused over l2 balls"),
    ],
)
def test_what_cant_be_asked_over_balls_is_named_before_the_run(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    text = SUITE.replace("    eps: [2/255]\n", BALLS.replace("sparse-crown: 5", "sparse-crown: 5, sparse-ibp: 5"))
    with pytest.raises(UserError, match=message):
        load_suite(write(tmp_path, text.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("networks: [cnn-small]", "networks: [cnn-smal]", r"line 4, cells\[0\]\.networks\[0\]: .*mean 'cnn-small'"),
        ("objectives: [ibp]", "objectives: [ipb]", r"line 5, .*Unknown objective 'ipb'\. Did you mean 'ibp'"),
        ("pruners: [lwm]", "pruners: [lwn]", r"line 7, .*Unknown pruner 'lwn'\. Did you mean 'lwm'"),
        ("networks:", "network:", r"line 4, cells\[0\]\.networks: the key 'networks' is missing"),
        ("    pruners:", "    prunners: 1\n    pruners:", r"cells\[0\]\.prunners: Unknown key .*mean 'pruners'"),
        ("[1, 10, 20]", "[1, 0.5]", r"line 8, cells\[0\]\.compression\[1\]: Compression 0.5 is refused"),
        ("[1, 10, 20]", "[1, ten]", r"compression\[1\]: 'ten' is refused; it must be a number"),
        ("[1, 10, 20]", "[1, true]", r"compression\[1\]: True is refused"),
        ("[1, 10, 20]", "[1, 10, 10]", r"compression\[2\]: 10 stands in the list twice"),
        ("[1, 10, 20]", "[]", r"compression: the list is empty"),
        ("    pruners: [lwm]\n", "", r"the key 'pruners' is missing"),
        ("eps: [2/255]", "eps: [2/0]", r"line 6, cells\[0\]\.eps\[0\]: Radius '2/0' is refused"),
        ("eps: [2/255]", "eps: ['300/255']", r"at most 1"),
        ("eps: [2/255]", "eps: [0.1]", r"line 6, cells\[0\]\.eps\[0\]: Radius 0\.1 .* write it as text, '0\.1'"),
        ("eps: [2/255]", "eps: [0]", r"line 6, cells\[0\]\.eps\[0\]: Radius '0' is refused; it must be above 0"),
        (
            "eps: [2/255]",
            "eps: [2/255]\n    trained_eps: two",
            r"line 7, cells\[0\]\.trained_eps: Radius 'two' is refused",
        ),
        (
            "objectives: [ibp]\n    eps: [2/255]",
            "objectives: [smoothing]\n    sigma: [0.25]\n    trained_eps: 2/255",
            "none",
        ),
        ("images: 40", "images: 0", r"line 10, verify\.images: 0 is refused; it must be within 1 and 10000"),
        ("images: 40", "images: many", r"verify\.images: 'many' is refused; it must be a whole number"),
        ("images: 40", "images: 40\n  images: 41", r"line 11, verify\.images: the key stands here twice"),
        ("images: 40", "imges: 40", r"Unknown key 'imges'\. Did you mean 'images'"),
        ("images: 40", "split: tset", r"verify\.split: Unknown split 'tset'\. Did you mean 'test'"),
        ("images: 40", "memory_mb: 1", r"verify\.memory_mb: 1 is refused"),
        ("images: 40", "settings: {fake-bound: {sahre: 1}}", r"line 10, .*Did you mean 'share'"),
        ("images: 40", "settings: {fake-bound: {share: x}}", r"must be of type float"),
        ("images: 40", "settings: {fake-bond: {share: 1}}", r"line 10, .*Unknown verifier 'fake-bond'"),
        ("fake-bound, fake-complete]", "fake-bound, fake-compleet]", r"line 11, .*Did you mean 'fake-complete'"),
        ("cross_check: [fake-bound]", "cross_check: [pgd]", r"line 12, .*Unknown verifier 'pgd' of the cascade"),
        ("fake-bound: 5,", "fake-bound: -1,", r"line 13, verify\.timeouts\.fake-bound: -1 is refused"),
        ("fake-bound: 5, ", "", r"verifier 'fake-bound' has no time limit"),
        ("half: {images: 20}", "half: {imags: 20}", r"line 15, profiles\.half\.imags: Unknown key"),
        ("name: tiny", "name: Tiny One", r"line 1, name: 'Tiny One' is refused"),
        ("name: tiny", "name: tiny\nextra: 1", r"line 2, extra: Unknown key 'extra'"),
        ("name: tiny", "name: tiny\ndata: imagenet", r"Unknown data set 'imagenet'"),
        ("name: tiny", "name: tiny\nschema_version: 99", r"99 is newer than this program reads"),
        ("description: ", "description: 5 #", r"line 2, description: 5 is refused; it must be text"),
        ("name: tiny", "name: tiny\nrecipes: {cnn-smal/ibp: {}}", r"recipes\.cnn-smal/ibp: Unknown network 'cnn-smal'"),
        ("name: tiny", "name: [tiny", r"is not YAML"),
    ],
)
def test_slips_are_refused_with_file_line_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SUITE
    path = write(tmp_path, SUITE.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        load_suite(path)
    assert path in str(caught.value)


def test_cells_that_two_blocks_verify_differently_are_refused(tmp_path: Path) -> None:
    start = SUITE.index("  - networks")
    block = SUITE[start : SUITE.index("verify:")]
    same = load_suite(write(tmp_path, SUITE.replace(block, block + block)))
    assert len(same.cells) == 3
    with pytest.raises(UserError, match="two blocks that verify it differently"):
        load_suite(write(tmp_path, SUITE.replace(block, block + block + "    verify: {images: 3}\n")))


def test_unknown_suites_and_files_are_named() -> None:
    with pytest.raises(UserError, match=r"Unknown suite 'cifar10-4net'\. Did you mean 'cifar10-4nets'"):
        load_suite("cifar10-4net")
    with pytest.raises(UserError, match="cannot be read"):
        load_suite("/nowhere/x.yaml")


def test_shipped_suites_load_in_all_profiles() -> None:
    assert "cifar10-4nets" in available_suites()
    for name in available_suites():
        for profile in load_suite(name).profiles:
            assert load_suite(name, profile).name == name


def test_the_main_suite_is_what_was_promised() -> None:
    suite = load_suite("cifar10-4nets", "paper")
    protocols = {cell.name: protocol for cell, protocol in suite.cells}
    for objective in ("ibp", "crown-ibp"):
        for cell in ("dense_x1", "lwm_x2", "lwm_x10", "lwm_x20", "lwm_x100", "hydra_x10"):
            protocol = protocols[f"cnn-small_{objective}_eps2_{cell}_s0"]
            assert (protocol.split, protocol.images, protocol.timeouts["neuralsat"]) == ("test", 1000, 300)
    assert "cnn-large_ibp_eps2_hydra_x100_s0" in protocols
    assert {cell.network for cell, _ in suite.cells} == {"cnn-small", "cnn-large", "resnet-2b", "cnn5"}
    assert {protocol.images for _, protocol in load_suite("cifar10-4nets", "board").cells} == {1000}
    # Networks whose bounds say nothing are attacked only, in a suite of their own.
    attacked = [protocol for _, protocol in load_suite("cifar10-attacked").cells]
    assert len(attacked) == 14
    assert {protocol.cascade for protocol in attacked} == {("pgd",)}


def test_a_network_has_one_recipe_in_all_suites() -> None:
    small, field = load_suite("cifar10-4nets"), load_suite("cifar10-certified")
    for network in ("cnn5", "resnet-2b"):
        assert small.recipe(network, "mtl-ibp") == field.recipe(network, "mtl-ibp")


def test_what_is_trained_as_published_is_trained_by_the_recipe_that_was_chosen_on_held_out_images() -> None:
    chosen, final = load_suite("cifar10-certified"), load_suite("cifar10-published")
    for compression in (1.0, 10.0, 100.0):
        recipe = chosen.recipe("cnn5", "mtl-ibp", compression, "lwm")
        if "parent" in recipe:
            recipe["parent"] = recipe["parent"].replace("cnn5", "cnn5-standardised")
        recipe["holdout"] = False
        assert final.recipe("cnn5-standardised", "mtl-ibp", compression, "lwm") == recipe


def test_every_recipe_of_a_shipped_suite_is_one() -> None:
    for name in available_suites():
        suite = load_suite(name)
        for cell, _ in suite.cells:
            Recipe.from_dict(suite.recipe(cell.network, cell.objective), cell.objective)


def test_every_shipped_checkpoint_was_made_by_the_recipe_of_a_suite() -> None:
    names = set()
    for name in available_suites():
        # One of another recipe is refused with an error.
        names |= {job.name for job in plan(load_suite(name), None, name) if is_done(ZOO, job)}
    assert names == {path.stem for path in ZOO.glob("*.json")}


def test_radii() -> None:
    assert show_eps(parse_eps("8 / 255")) == "8/255"
    assert show_eps(parse_eps("0.1")) == "1/10"
    assert Cell("a", "b", parse_eps("1/510"), "c", 2.5, 3).name == "a_b_eps0.5_c_x2.5_s3"


def test_bits_make_cells_of_one_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    path.write_text(SUITE.replace("compression: [1, 10, 20]", "compression: [1, 10]\n    bits: [32, 8, 8/4/4/6, int8]"))
    cells = [cell for cell, _ in load_suite(str(path)).cells]
    assert [cell.bits for cell in cells] == 2 * [(), (8,), (8, 4, 4, 6), ()]
    assert [cell.int8 for cell in cells] == 2 * [False, False, False, True]
    assert len({cell.name for cell in cells}) == 8
    assert len({cell.as_trained for cell in cells}) == 2
    for wrong, message in (
        ("true", "allowed are 32"),
        ("[4, 16]", "each must be within 2 and 8"),
        ("x", "are refused"),
        ("[8, int8, 8/8/8/8]", r"bits\[2\]: Bits '8/8/8/8' are refused; they stand in the list as 8 already"),
    ):
        path.write_text(SUITE.replace("compression: [1, 10, 20]", f"compression: [1]\n    bits: {wrong}"))
        with pytest.raises(UserError, match=rf"few\.yaml, line \d+, .*{message}"):
            load_suite(str(path))
