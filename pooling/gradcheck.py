"""placeholder"""


def gradcheck(operator: object, x: object) -> None: ...
