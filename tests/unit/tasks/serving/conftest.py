"""Small models, and a function that serves one; what needs fastapi is imported when a test asks for it."""

import pytest


@pytest.fixture(scope="session")
def protein():
    pytest.importorskip("bionemo_esm")
    from served_models import ENCODER, opened

    return opened("esm1nv", "esm1nv", ENCODER)


@pytest.fixture(scope="session")
def molecules():
    pytest.importorskip("bionemo_molbart")
    from served_models import MOLECULES, opened

    return opened("molmim", "smiles", MOLECULES)


@pytest.fixture(params=["sequence_regression", "token_classification"])
def finetuned_model(request, protein):
    from served_models import with_head

    classes = {"classes": ("C", "E", "H")} if request.param == "token_classification" else {}
    return with_head(protein, request.param, **classes)


@pytest.fixture
def start():
    """Return the class `ServedHere`; the engines of its instances are closed at the end."""
    from served_models import ServedHere

    running = []

    def begin(*arguments, **keys):
        running.append(ServedHere(*arguments, **keys))
        return running[-1]

    yield begin
    for one in running:
        one.engine.close()
