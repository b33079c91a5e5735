"""Flow definitions: what a name and a version mean, and which code that is."""

from triggerflow.flows.build import build_of as build_of
from triggerflow.flows.flow import Flow as Flow
from triggerflow.flows.flow import define_flow as define_flow
from triggerflow.flows.flow import flow as flow
from triggerflow.flows.registry import FlowRegistry as FlowRegistry

__all__ = ["Flow", "FlowRegistry", "build_of", "define_flow", "flow"]
