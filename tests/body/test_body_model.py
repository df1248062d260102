"""The body layer: identities that hold for any body, checked on the shipped one."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dpmesh.body.files import BodyArrays, free_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.skeletons import SMPL24, SMPL_PARENTS


@pytest.fixture(scope="module")
def arrays() -> BodyArrays:
    return free_body()


@pytest.fixture(scope="module")
def body(arrays: BodyArrays) -> BodyModel:
    return BodyModel(arrays).double()


def random_rotations(seed: int, count: int, degrees: float = 40) -> Tensor:
    vectors = np.random.default_rng(seed).normal(0, np.deg2rad(degrees), (count * 24, 3))
    return torch.from_numpy(Rotation.from_rotvec(vectors).as_matrix()).reshape(count, 24, 3, 3)


def random_betas(seed: int, count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 10)))


REST = torch.eye(3, dtype=torch.float64).expand(1, 24, 3, 3)


def test_rest_pose_is_template_plus_shape(arrays: BodyArrays, body: BodyModel) -> None:
    betas = random_betas(0, 1)
    out = body(betas, REST)
    expected = arrays.v_template.astype(np.float64) + arrays.shapedirs.astype(np.float64) @ betas[0].numpy()
    np.testing.assert_allclose(out.vertices[0].numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(out.joints[0].numpy(), arrays.J_regressor @ expected, atol=1e-6)
    np.testing.assert_allclose(out.joints30[0].numpy(), arrays.regressors["joints30"] @ expected, atol=1e-6)


def test_equals_a_plain_transcription_of_the_paper(arrays: BodyArrays, body: BodyModel) -> None:
    """SMPL, eqs. 2-10, with 4×4 matrices and a loop over vertices' joints instead of the layer's layout."""
    betas, rotations = random_betas(1, 1), random_rotations(1, 1)
    shaped = arrays.v_template + (arrays.shapedirs * betas[0].numpy()).sum(-1)
    joints = arrays.J_regressor.astype(np.float64) @ shaped
    turns = rotations[0].numpy()
    posed = shaped + arrays.posedirs @ np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    world: list[np.ndarray] = []
    for joint, parent in enumerate(SMPL_PARENTS):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    homogeneous = np.column_stack([posed, np.ones(len(posed))])
    expected = np.zeros_like(posed)
    for joint, matrix in enumerate(world):
        back = np.eye(4)
        back[:3, 3] = -joints[joint]
        expected += arrays.weights[:, joint, None] * (homogeneous @ (matrix @ back).T)[:, :3]
    out = body(betas, rotations)
    np.testing.assert_allclose(out.vertices[0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(out.joints[0].numpy(), [matrix[:3, 3] for matrix in world], atol=1e-6)


def test_gradients_in_float64(arrays: BodyArrays) -> None:
    # Every 200th vertex: gradcheck is quadratic in the size of its outputs.
    some = slice(0, None, 200)
    small = BodyArrays(
        v_template=arrays.v_template[some],
        shapedirs=np.ascontiguousarray(arrays.shapedirs[some]),
        posedirs=np.ascontiguousarray(arrays.posedirs[some]) + np.float32(0.01),
        J_regressor=np.full((24, len(arrays.v_template[some])), 1 / len(arrays.v_template[some]), np.float32),
        weights=arrays.weights[some],
        parents=arrays.parents,
        faces=np.array([[0, 1, 2]]),
        regressors={"joints30": np.eye(30, len(arrays.v_template[some]), dtype=np.float32)},
    )
    model = BodyModel(small).double()
    betas, rotations, transl = random_betas(2, 1), random_rotations(2, 1), torch.ones(1, 3).double()

    def outputs(b: Tensor, r: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        out = model(b, r, t)
        return out.vertices[:, ::3], out.joints, out.joints30, model.joints30_only(b, r, t)

    inputs = tuple(x.requires_grad_() for x in (betas, rotations, transl))
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)


def test_batch_equals_singles(body: BodyModel) -> None:
    betas, rotations, transl = random_betas(3, 4), random_rotations(3, 4), random_betas(4, 4)[:, :3]
    batch = body(betas, rotations, transl)
    for i in range(4):
        one = body(betas[i : i + 1], rotations[i : i + 1], transl[i : i + 1])
        torch.testing.assert_close(one.vertices[0], batch.vertices[i], rtol=0, atol=1e-12)
        torch.testing.assert_close(one.joints[0], batch.joints[i], rtol=0, atol=1e-12)
        torch.testing.assert_close(one.joints30[0], batch.joints30[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_translation_is_exact(arrays: BodyArrays, dtype: torch.dtype) -> None:
    model = BodyModel(arrays).to(dtype)
    betas, rotations = random_betas(5, 2).to(dtype), random_rotations(5, 2).to(dtype)
    transl = torch.tensor([[1.5, -2.25, 30.0], [0, 0, 0]], dtype=dtype)
    moved, still = model(betas, rotations, transl), model(betas, rotations)
    assert torch.equal(moved.vertices, still.vertices + transl[:, None])
    assert torch.equal(moved.joints, still.joints + transl[:, None])
    assert torch.equal(moved.joints30, still.joints30 + transl[:, None])


def test_joints30_only_equals_the_full_pass(body: BodyModel, arrays: BodyArrays) -> None:
    betas, rotations, transl = random_betas(6, 3), random_rotations(6, 3), random_betas(7, 3)[:, :3]
    full = body(betas, rotations, transl).joints30
    torch.testing.assert_close(body.joints30_only(betas, rotations, transl), full, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        body.joints30_only(betas, rotations), full - transl[:, None], rtol=0, atol=1e-10
    )
    single = BodyModel(arrays)
    fast = single.joints30_only(betas.float(), rotations.float(), transl.float())
    torch.testing.assert_close(fast.double(), full, rtol=0, atol=1e-5)


def test_root_turns_everything_about_the_first_joint(body: BodyModel) -> None:
    betas, rotations = random_betas(8, 1), random_rotations(8, 1)
    root = random_rotations(9, 1)[:, 0]
    turned = rotations.clone()
    turned[:, 0] = root @ rotations[:, 0]
    before, after = body(betas, rotations), body(betas, turned)
    pivot = before.joints[:, :1]
    expected = (before.vertices - pivot) @ root.transpose(1, 2) + pivot
    # float32 files: the weights of a vertex sum to 1 within 1e-7, so it follows within 1e-7 of its distance.
    torch.testing.assert_close(after.vertices, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["L_Knee", "R_Elbow", "Chest", "Head"])
def test_a_joint_moves_only_what_hangs_on_it(body: BodyModel, arrays: BodyArrays, name: str) -> None:
    joint = SMPL24.index(name)
    below = {joint}
    for child, parent in enumerate(SMPL_PARENTS):
        if parent in below:
            below.add(child)
    bent = REST.clone()
    bent[:, joint] = torch.from_numpy(Rotation.from_rotvec([0.5, 0.4, 0.3]).as_matrix())
    zero = torch.zeros(1, 10).double()
    moved = (body(zero, bent).vertices - body(zero, REST).vertices)[0].norm(dim=-1).numpy()
    share = arrays.weights[:, sorted(below)].sum(1)
    assert moved[share == 0].max() < 1e-9
    # What hangs on it wholly and far away moves for certain.
    far = (share == 1) & (
        np.linalg.norm(arrays.v_template - arrays.J_regressor[joint] @ arrays.v_template, axis=1) > 0.1
    )
    assert far.sum() > 50 and moved[far].min() > 1e-3


def test_buffers_stay_out_of_checkpoints(body: BodyModel) -> None:
    assert not body.state_dict() and not list(body.parameters())


def test_a_missing_regressor_is_named(arrays: BodyArrays) -> None:
    bare = BodyArrays(**{**arrays.__dict__, "regressors": {}})
    with pytest.raises(InputError, match="no regressor 'h36m17'"):
        BodyModel(bare).regress(torch.zeros(1, len(bare.v_template), 3), "h36m17")
