"""What others see of boards: people in `tradewind nodes`, the orchestrator in reports."""

from __future__ import annotations

import pytest

from services.node_agent.devices.port import BoardDetail, Partition, Reading, SliceDetail
from services.node_agent.wire import reading_message
from services.orchestrator.translate.nodes import node_of
from tradewind.cli.commands.nodes import show_nodes
from tradewind.cli.output import Output
from tradewind.domain.figures import EnergyFigure, FigureSource
from tradewind.v1 import node_pb2, orchestrator_pb2

UUID = "MIG-a2c3d780-78fc-9c62-d8ee-08c3607700c2"


def test_slices_and_faults_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    partition = Partition("GPU-1:mig:9@4", "GPU-1", "mig/3g.40gb", (), 40 << 30, UUID)
    one = SliceDetail(partition, 5 << 30, 0.5, None, EnergyFigure(2e6, FigureSource.ATTRIBUTED), 90_000.0)
    detail = BoardDetail(FigureSource.MEASURED_COUNTER, temperature_c=61, slices=(one,), events=(("xid 31", 2),))
    energy = EnergyFigure(5e6, FigureSource.MEASURED_COUNTER, "nvml-counter@1")
    message = reading_message("GPU-1", Reading(energy, 210_000.0, 0.3, 6 << 30, "XID 48", detail))
    assert message.slices[0].partition.uuid == UUID and not message.slices[0].HasField("dram_activity")
    assert message.temperature_c == 61 and not message.HasField("sm_clock_mhz") and message.events[0].count == 2
    device = node_pb2.Device(device_id="GPU-1", device_class="gpu:h100-80", memory_bytes=80 << 30)
    report = node_pb2.NodeReport(node_id="n1", devices=[device], readings=[message], faults=["NVIDIA driver: gone"])
    show_nodes(Output(), [orchestrator_pb2.Node(report=report)])
    said = capsys.readouterr().out
    for words in ("mig/3g.40gb", "50%", "90.0 W (attributed)", "MIG-a2c3", "n1: NVIDIA driver: gone", "GPU-1: XID 48"):
        assert words in said
    assert max(map(len, said.splitlines())) <= 100


def test_a_device_that_is_out_is_no_place() -> None:
    devices = [node_pb2.Device(device_id=name) for name in ("GPU-2", "GPU-1", "cpu0")]
    readings = [node_pb2.DeviceReading(device_id="GPU-1", fault="XID 79"), node_pb2.DeviceReading(device_id="GPU-2")]
    node = node_of(node_pb2.NodeReport(node_id="n1", devices=devices, readings=readings))
    assert [device.device_id for device in node.devices] == ["GPU-2", "cpu0"]
