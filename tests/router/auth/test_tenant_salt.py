from hypothesis import given
from hypothesis import strategies as st

from router.auth.caller import Caller, acting_for
from router.auth.tenant_salt import tenant_salt
from router.intake import Intake, SamplingOptions
from router.text.tokenizer import TextCodec
from tests.router.http.serving import MODEL

names = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)


@given(names, st.text(), names, st.text())
def test_two_requests_share_kv_when_both_tenant_and_salt_are_the_same(
    tenant: str, salt: str, other_tenant: str, other_salt: str
) -> None:
    is_same = tenant_salt(tenant, salt) == tenant_salt(other_tenant, other_salt)
    assert is_same == ((tenant, salt) == (other_tenant, other_salt))
    assert tenant_salt("", salt) == salt


def test_request_carries_its_tenant_and_the_tenants_salt(codec: TextCodec) -> None:
    intake = Intake(codec, MODEL, 100)
    made = []
    for caller in (Caller("a", "acme"), Caller("b", "acme"), Caller("c", "other"), Caller()):
        with acting_for(caller):
            made.append(intake.request("id", [1], prompt_param="text", sampling=SamplingOptions(), cache_salt="mine"))
    assert [request.tenant for request in made] == ["acme", "acme", "other", ""]
    assert made[0].cache_salt == made[1].cache_salt
    assert len({request.cache_salt for request in made}) == 3
    assert made[3].cache_salt == "mine"
